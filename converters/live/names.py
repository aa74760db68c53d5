"""Live names: a parameter's name in a running trainer, and the tensor of the table that it is."""

from __future__ import annotations

from functools import lru_cache

from ..errors import MismatchError, shown
from ..formats.keys import fold, ignorable
from ..layouts import named
from ..layouts.refusals import stripped
from ..models.shared.config import ModelConfig
from ..tensors.mapped import nearest
from .model import LiveModel
from .table import Found


def canonical(name: str, model: LiveModel, ep_rank: int = 0, ep_size: int = 1) -> Found | None:
    """The tensor of the table that a parameter is; None for what is no weight, and for a tied output layer.

    Args:
        name: with any wrapper's prefixes (`module.module.`), as Transformer Engine or a local spec names it, experts
            grouped (`linear_fc1.weight3`) or in modules of their own; the layer's number counts over all stages.
        model: the model.
        ep_rank, ep_size: where experts are numbered within a rank. 0 of 1: they are numbered over all ranks.

    Raises:
        MismatchError: the model has no such tensor, or no such expert; names the nearest ones.
    """
    key = (name, ep_rank, ep_size)
    if key not in model.known_names:
        model.known_names[key] = _canonical(name, model, ep_rank, ep_size)
    return model.known_names[key]


def _canonical(name: str, model: LiveModel, ep_rank: int, ep_size: int) -> Found | None:
    shapes, short = model.table().mcore, stripped(name)
    if ignorable(short):
        return None
    if short in shapes:
        return Found(short)
    if model.config.text.tied and short == f"{model.layout.text}output_layer.weight":
        return None  # the embedding itself, or the copy that the last stage has
    how = fold(short)
    found = how.name if how.name in shapes else _spellings(model.config, model.layout.name).get(how.name, "")
    if found not in shapes or how.stacked or how.half or how.piece:
        raise _unknown(name, short, model)
    if how.expert is None:
        return Found(found)
    return Found(found, _expert(name, how.expert, model.config.text.experts, ep_rank, ep_size))


@lru_cache(maxsize=16)
def _spellings(config: ModelConfig, layout: str) -> dict[str, str]:
    """Other name -> name in the table."""
    return dict(named(layout).spellings(config))


def _expert(name: str, number: int, experts: int, ep_rank: int, ep_size: int) -> int:
    """The number over all ranks."""
    if not 0 <= ep_rank < ep_size or experts % ep_size:
        raise MismatchError(
            f"expert parallel rank {ep_rank} of {ep_size} for {experts} experts", "Give the sizes that the job has."
        )
    each = experts // ep_size
    if number >= each:
        raise MismatchError(
            f"{shown(name)} is expert {number} of {each}" + (f" on each of {ep_size} ranks" if ep_size > 1 else ""),
            "Experts are numbered from 0 on: over all ranks, or within one where ep_rank and ep_size are given.",
        )
    return ep_rank * each + number


def _unknown(name: str, short: str, model: LiveModel) -> MismatchError:
    names = model.table().mcore
    return MismatchError(
        f"{shown(name)} is no tensor of this {model.config.model_type} in layout {model.layout.name}"
        f"{nearest(short, names)}",
        "Is the config that of this model, and the layout right?",
    )
