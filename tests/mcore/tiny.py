"""Tiny configs with every trait of the real ones, and random Hugging Face tensors for them.

tiny, tiny_2_5     Qwen3-VL, Qwen2.5-VL
tiny_text          qwen3, qwen3_moe, qwen2: language models without a tower
without_tower      the language half of any of them
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import torch

from vlconv.converters.models.shared.config import ModelConfig, TextConfig, VisionConfig

from .families import hybrid, vision_top
from .hub import hf_shapes
from .hybrid.hub import values as hybrid_values
from .hybrid.tiny import tiny_hybrid

__all__ = ["hf_shapes", "random_hf_tensors", "tiny", "tiny_2_5", "tiny_hybrid", "tiny_text", "without_tower"]

# No two sizes that could be confused are equal: heads x head_dim differs from hidden, an expert is not square, 248 rows
# need padding to 256.
_TEXT: dict[str, Any] = {"layers": 4, "hidden": 64, "heads": 8, "groups": 4, "head_dim": 16, "ffn": 96, "vocab": 248}
_VISION: dict[str, Any] = {
    "depth": 3,
    "hidden": 32,
    "heads": 4,
    "ffn": 80,
    "out_hidden": 64,
    "patch": 4,
    "temporal_patch": 2,
    "channels": 3,
    "merge": 2,
}


def tiny(tied: bool = False, moe: bool = False, dense_layers: Iterable[int] = (), **text: int) -> ModelConfig:
    """A tiny Qwen3-VL.

    Args:
        tied: whether the embedding is the output layer too.
        moe: Qwen3-VL-MoE: four experts, two chosen.
        dense_layers: layers without experts, of a MoE model; megatron-core then writes per-layer keys, whatever form is
            asked for.
        text: other sizes of the language model, by TextConfig's field names.
    """
    experts: dict[str, Any] = {"experts": 4, "moe_ffn": 24, "dense_layers": frozenset(dense_layers)} if moe else {}
    language = TextConfig(**{**_TEXT, "tied": tied, **experts, **text})
    vision = VisionConfig(**_VISION, positions=16, deepstack=(0, 2))
    return ModelConfig("qwen3_vl_moe" if moe else "qwen3_vl", language, vision)


def tiny_2_5(tied: bool = False) -> ModelConfig:
    """A tiny Qwen2.5-VL: heads x head_dim is hidden, as transformers has no other."""
    language = TextConfig(**{**_TEXT, "head_dim": 8, "tied": tied})
    return ModelConfig("qwen2_5_vl", language, VisionConfig(**_VISION))


def tiny_text(kind: str, tied: bool = False, dense_layers: Iterable[int] = (), **text: int) -> ModelConfig:
    """A tiny language model without a tower.

    Args:
        kind: qwen3, qwen3_moe (four experts, two chosen) or qwen2 (heads x head_dim is hidden, q, k and v biased).
        tied: whether the embedding is the output layer too.
        dense_layers: see `tiny`.
        text: other sizes, by TextConfig's field names.
    """
    own: dict[str, dict[str, Any]] = {
        "qwen3": {},
        "qwen3_moe": {"experts": 4, "moe_ffn": 24, "dense_layers": frozenset(dense_layers)},
        "qwen2": {"head_dim": 8},
    }
    return ModelConfig(kind, TextConfig(**{**_TEXT, "tied": tied, **own[kind], **text}))


def without_tower(config: ModelConfig) -> ModelConfig:
    """The language half of a Qwen-VL: its own names on the Hub and in Megatron, its tower not there."""
    return replace(config, vision=None)


def random_hf_tensors(
    config: ModelConfig, seed: int = 0, float32: Iterable[str] = (), scale: float = 1.0, packed_mtp: bool = False
) -> dict[str, torch.Tensor]:
    """Random bfloat16 tensors under the Hub's names.

    Args:
        config: the model.
        seed: of the numbers.
        float32: patterns (fnmatch) of names that become float32 instead. Stacked layers share one dtype, and so do q,
            k, v and gate, up: name all of them. A Gated DeltaNet's own vectors are bfloat16 in Megatron all the same.
        scale: standard deviation; norms are around 1, or around 0 where the model has them zero-centred.
        packed_mtp: see `hf_shapes`.
    """
    generator = torch.Generator().manual_seed(seed)
    patterns = tuple(float32)
    tensors = {}
    for name, shape in hf_shapes(config, packed_mtp).items():
        if hybrid(config) and not name.startswith(vision_top(config)):
            values = hybrid_values(name, shape, generator, scale)
        else:
            values = torch.randn(shape, generator=generator) * scale
            values = values + 1 if len(shape) == 1 and not name.endswith("bias") else values
        tensors[name] = values if any(fnmatchcase(name, p) for p in patterns) else values.to(torch.bfloat16)
    return tensors
