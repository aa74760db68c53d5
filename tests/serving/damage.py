"""Mistakes that load without a word: two parts of one tensor, or two tensors, exchanged in what was written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file


@dataclass(frozen=True)
class Exchange:
    """What to exchange in a form.

    Attributes:
        form: a key of FORMS.
        tensors: one name, or two.
        axis, start, size: of one tensor, the parts [0, size) and [start, start + size) of an axis.
        moved: the prompts that must notice; the others must not.
    """

    form: str
    tensors: tuple[str, ...]
    axis: int = 0
    start: int = 0
    size: int = 0
    moved: tuple[str, ...] = ("text", "images")


_EXPERTS = "model.language_model.layers.2.mlp.experts"

EXCHANGES = {
    "query heads": Exchange("dense", ("model.language_model.layers.1.self_attn.q_proj.weight",), start=32, size=32),
    "vision heads": Exchange(
        "Qwen2.5-VL, old names", ("visual.blocks.1.attn.qkv.weight",), start=8, size=8, moved=("images",)
    ),
    "gate and up": Exchange("MoE, stacked", (f"{_EXPERTS}.gate_up_proj",), axis=2, start=24, size=24),
    "query heads, text-only": Exchange("Qwen3", ("model.layers.1.self_attn.q_proj.weight",), start=32, size=32),
    "experts, text-only": Exchange(
        "Qwen3-MoE",
        ("model.layers.2.mlp.experts.0.up_proj.weight", "model.layers.2.mlp.experts.3.up_proj.weight"),
    ),
    "key heads": Exchange("Qwen2.5", ("model.layers.1.self_attn.k_proj.weight",), start=32, size=32),
    "experts": Exchange("MoE, per expert", (f"{_EXPERTS}.0.up_proj.weight", f"{_EXPERTS}.3.up_proj.weight")),
}


def damage(directory: Path, exchange: Exchange) -> None:
    """Do it, in a directory with one file of weights."""
    tensors = load_file(directory / "model.safetensors")
    if len(exchange.tensors) == 2:
        a, b = exchange.tensors
        tensors[a], tensors[b] = tensors[b], tensors[a]
    else:
        whole = tensors[exchange.tensors[0]]
        a, b = (whole.narrow(exchange.axis, start, exchange.size) for start in (0, exchange.start))
        kept = a.clone()
        a.copy_(b)
        b.copy_(kept)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
