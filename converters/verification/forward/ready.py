"""What verify --forward refuses before anything is read, and what it will run."""

from __future__ import annotations

from collections.abc import Mapping

from ...checkpoint.mcore_side import McoreSide
from ...errors import NotComparable
from ...options import VerifyOptions
from ...ranks.lead import led
from ..sources import Side
from .batch import batch_for
from .forward import Forward
from .hugging_face.run import version
from .megatron.model import memory_needed, why_not
from .model import Model, model_of_side
from .sizes import EXACT, Fit, check_room, fit


def ready(sides: Mapping[str, Side], options: VerifyOptions) -> Forward:
    """Everything that can be refused is refused here.

    Args:
        sides: by name; "" is A alone, a Megatron checkpoint.
        options: of verify.

    Raises:
        NotComparable: a library or a device is missing, memory does not suffice, or nothing could be compared.
    """
    if led.get():
        raise NotComparable("--forward runs models in one process after the other", "Start vlconv without torchrun.")
    library = version()
    models = _models(sides, options.layers)
    if len(models) == 1 and not isinstance(models[0].side, McoreSide):
        raise NotComparable(
            "--forward compares what two models compute, and this is one Hugging Face directory",
            "Give the other one as B: vlconv verify A B --forward.",
        )
    layers = max(model.config.text.layers for model in models)
    found = fit(models, options.device, layers, lambda count: _models(sides, count))
    without = {model.name: _why_not(model, found, options) for model in models if isinstance(model.side, McoreSide)}
    if len(models) == 1 and (why := without[models[0].name]):
        raise NotComparable(
            f"megatron-core does not run this, so there is nothing to compare with: {why}",
            "Give a Hugging Face directory as B.",
        )
    check_room(models, [name for name, why in without.items() if not why])
    batch = batch_for(*((model.config, model.hf_config) for model in models))
    return Forward(models, batch, found, library, options, without)


def _models(sides: Mapping[str, Side], layers: int | None) -> list[Model]:
    return [model_of_side(name or "A", side, layers) for name, side in sides.items()]


def _why_not(model: Model, found: Fit, options: VerifyOptions) -> str:
    """Why megatron-core does not run a Megatron side; "": it does."""
    assert isinstance(model.side, McoreSide)
    if found.dtype != EXACT:
        return f"it would need float32, and there is memory for {found.dtype} alone"
    needed = memory_needed(model.side, options.layers)
    if needed > found.free:
        return f"it needs {needed / 1e9:.1f} GB of memory, and {found.free / 1e9:.1f} GB are free"
    return why_not(model.side) or ""
