"""What is recognised and refused by name, and the prefixes that wrappers put before any layout's names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from ..errors import UnsupportedError, shown
from ..tensors.spec import TensorSpec

WRAPPERS = ("model.module.module.", "model.module.", "module.module.", "module.", "model.")
"""What data-parallel and FSDP wrappers put before names; stripped longest first, repeatedly."""


def stripped(name: str) -> str:
    """A name without its wrappers' prefixes."""
    while True:
        prefix = next((w for w in WRAPPERS if name.startswith(w)), None)
        if prefix is None:
            return name
        name = name[len(prefix) :]


class _Refusal(NamedTuple):
    meets: Callable[[str, TensorSpec], bool]
    what: str
    hint: str


def _holds(*parts: str) -> Callable[[str, TensorSpec], bool]:
    return lambda name, spec: any(part in name for part in parts)


_REFUSALS = (
    _Refusal(
        lambda name, spec: name.endswith("output_layer.weight") and bool(spec.shape) and spec.shape[0] == 1,
        "has one row: this is a critic or reward model",
        "Only language models with their output layer are converted.",
    ),
    _Refusal(
        _holds("value_head", "v_head", "score.", "reward_head"),
        "is the head of a critic or reward model",
        "Only language models are converted.",
    ),
    _Refusal(
        lambda name, spec: (
            spec.dtype.startswith(("uint", "int", "float8"))
            or name.endswith(("_scale_inv", "_scale", ".qweight", ".qzeros", ".scales", ".g_idx"))
        ),
        "is a quantised weight",
        "Save the checkpoint with plain bfloat16 weights.",
    ),
    _Refusal(
        _holds("decoder.final_norm."),
        "belongs to Megatron's hybrid-model layout",
        "That layout is still in development and not converted.",
    ),
)


def refuse(specs: Mapping[str, TensorSpec]) -> None:
    """Refuse a checkpoint of another kind of model by name.

    Raises:
        UnsupportedError: naming the tensor, saying what it is and what to do.
    """
    if not specs:
        raise UnsupportedError(
            "the checkpoint holds no weights, only a trainer's state",
            "verl may have saved the model in Hugging Face's form beside it.",
        )
    for refusal in _REFUSALS:
        name = next((n for n, spec in specs.items() if refusal.meets(n, spec)), None)
        if name is not None:
            raise UnsupportedError(f"{shown(name)} {shown(list(specs[name].shape))} {refusal.what}", refusal.hint)
    if _is_pai_qwen2(specs):
        raise UnsupportedError(
            "the checkpoint is Pai-Megatron-Patch's Qwen2-VL: a projection, norms with bias and no deepstack",
            "Qwen2-VL is not converted.",
        )


def _is_pai_qwen2(names: Iterable[str]) -> bool:
    """Qwen2.5-VL's norms have no bias, and Qwen3-VL has deepstack."""
    tower = [name for name in names if name.startswith("vision_model.")]
    projects = any(name.startswith("vision_model.projection.encoder.") for name in tower)
    return (
        projects
        and any("linear_qkv.layer_norm_bias" in name for name in tower)
        and not any("deepstack" in name for name in tower)
    )
