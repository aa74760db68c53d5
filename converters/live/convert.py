"""One parameter converted, either way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from ..errors import MismatchError, shown
from ..models.shared.config import ModelConfig
from ..tensors.spec import Shape
from ..tensors.vocabulary import EMBEDDING, OUTPUT_LAYER, explain
from .arrays import Tensor, empty, laid_together, plain, plus
from .config import AnyConfig
from .model import LiveModel, live_model
from .names import canonical
from .table import Found

Named = list[tuple[str, Tensor]]


def convert_tensor(
    name: str,
    tensor: Tensor | Mapping[str, Tensor],
    *,
    config: AnyConfig | ModelConfig | LiveModel,
    layout: str | None = None,
    to: Literal["hf", "mcore"] = "hf",
    ep_rank: int = 0,
    ep_size: int = 1,
) -> Named:
    """One full mcore parameter as its Hugging Face tensors, or back.

    Args:
        name: the parameter's name in the trainer: wrappers' prefixes may stand before it, the layer's number counts
            over all stages, experts are grouped (`linear_fc1.weight3`), in modules of their own, or all in one tensor.
        tensor: to "hf": the whole parameter, gathered over tensor parallel ranks. To "mcore": Hugging Face tensors by
            their names, among them all that the parameter is made of.
        config: see `live_model`. What `live_model` makes costs nothing more; all else is read at every call.
        layout: the trainer's naming; None: "mbridge", or the model's own default.
        to: which side is wanted.
        ep_rank, ep_size: where experts are numbered within an expert parallel rank.

    Returns:
        (name, tensor) pairs: views where one box of one tensor is all of the result (of a transposed one not
        contiguous), else new tensors on the same device. To "hf": [] for what is no weight (`_extra_state`) and for the
        output layer of a tied model, which is its embedding. To "mcore": one pair, under the name that was given.

    Raises:
        MismatchError: the model has no such tensor, or a shape is another than the config gives.
    """
    model = live_model(config, layout)
    if to == "hf":
        return to_hf(model, name, tensor, ep_rank, ep_size)
    if not isinstance(tensor, Mapping):
        raise MismatchError(
            f"{shown(name)} is made of Hugging Face tensors by their names", "Give a dict of them, or a state_dict."
        )
    return to_mcore(model, name, tensor, ep_rank, ep_size)


def to_hf(model: LiveModel, name: str, tensor: Tensor, ep_rank: int = 0, ep_size: int = 1) -> Named:
    """See `convert_tensor`."""
    found = canonical(name, model, ep_rank, ep_size)
    if found is None:
        return []
    table = model.table_for(found)
    tensor = _own(name, plain(tensor, name), found, model)
    if found.name in table.less_one:
        tensor = plus(tensor, 1.0, name)
    return [(each.name, laid_together(each, lambda _: tensor)) for each in table.to_hf(found)]


def to_mcore(
    model: LiveModel,
    name: str,
    tensors: Mapping[str, Tensor],
    ep_rank: int = 0,
    ep_size: int = 1,
    vocab_rows: int | None = None,
) -> Named:
    """See `convert_tensor`; `vocab_rows` pads embedding and output layer with zeros to so many rows."""
    found = canonical(name, model, ep_rank, ep_size)
    if found is None:
        return []
    table = model.table_for(found)
    assembly = table.to_mcore(found)
    names = dict.fromkeys(run.copy.left.name for run in assembly.runs)
    parts = {part: _given(part, tensors, name, model, table.hf[part]) for part in names}
    _same_dtype(name, parts)
    result = laid_together(assembly, parts.__getitem__)
    if found.name in table.less_one:
        result = plus(result, -1.0, name)
    return [(name, padded(result, vocab_rows) if vocab_rows and per_token(found.name) else result)]


def sources_of(model: LiveModel, name: str, ep_rank: int = 0, ep_size: int = 1) -> list[str]:
    """The Hugging Face tensors that an mcore parameter is made of; [] for what is no weight."""
    found = canonical(name, model, ep_rank, ep_size)
    if found is None:
        return []
    return list(dict.fromkeys(run.copy.left.name for run in model.table_for(found).to_mcore(found).runs))


def _own(name: str, tensor: Tensor, found: Found, model: LiveModel) -> Tensor:
    """A parameter of the right shape, without padding."""
    shape, have = model.table_for(found).shape(found), tuple(tensor.shape)
    if per_token(found.name) and have[1:] == shape[1:] and have[0] > shape[0]:
        explain(have[0], shape[0], model.divisor, {})
        return tensor[: shape[0]]
    if have != shape:
        raise _wrong_shape(name, have, shape, model)
    return tensor


def _given(part: str, tensors: Mapping[str, Tensor], name: str, model: LiveModel, shape: Shape) -> Tensor:
    """One of the Hugging Face tensors."""
    if part not in tensors:
        raise MismatchError(
            f"{shown(name)} is made of {shown(part)}, among others, which is not there", "Give all of sources_of(…)."
        )
    tensor = plain(tensors[part], part)
    if tuple(tensor.shape) != shape:
        raise _wrong_shape(part, tuple(tensor.shape), shape, model)
    return tensor


def _wrong_shape(name: str, have: Shape, want: Shape, model: LiveModel) -> MismatchError:
    return MismatchError(
        f"{shown(name)} is {list(have)}; the config of this {model.config.model_type} gives {list(want)}",
        "Give whole parameters, gathered over tensor parallel ranks, and the config of the same model.",
    )


def _same_dtype(name: str, parts: Mapping[str, Tensor]) -> None:
    by_dtype = {str(tensor.dtype): part for part, tensor in parts.items()}
    if len(by_dtype) > 1:
        listed = ", ".join(f"{shown(part)} is {dtype}" for dtype, part in by_dtype.items())
        raise MismatchError(f"{shown(name)} would be made of parts with different dtypes: {listed}", "Cast them first.")


def padded(tensor: Tensor, rows: int) -> Tensor:
    """A tensor with rows of zeros below it."""
    if rows < tensor.shape[0]:
        raise MismatchError(
            f"a vocabulary of {tensor.shape[0]} has no place in {rows} rows", "Give vocab_rows as the trainer has them."
        )
    result = empty((rows, *tensor.shape[1:]), tensor)
    result[: tensor.shape[0]] = tensor
    result[tensor.shape[0] :] = 0
    return result


def per_token(name: str) -> bool:
    """Whether a tensor has a row for each token."""
    return name.endswith((*EMBEDDING, *OUTPUT_LAYER))
