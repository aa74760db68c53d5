"""Tiny hybrids: no two sizes that could be confused are equal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vlconv.converters.models.shared.config import ModelConfig, TextConfig, VisionConfig

# Queries of attention 128 rows, of a Gated DeltaNet 32; values of attention 64 rows, of a Gated DeltaNet 240, which is
# 60 for each key head. 248 rows of vocabulary need padding to 256.
_TEXT: dict[str, Any] = {
    "layers": 4,
    "hidden": 80,
    "heads": 8,
    "groups": 4,
    "head_dim": 16,
    "ffn": 104,
    "vocab": 248,
    "key_heads": 4,
    "value_heads": 12,
    "key_dim": 8,
    "value_dim": 20,
    "kernel": 4,
    "mtp": 1,
}
_EXPERTS: dict[str, Any] = {"experts": 6, "moe_ffn": 24, "shared_ffn": 36}
_VISION: dict[str, Any] = {
    "depth": 3,
    "hidden": 32,
    "heads": 4,
    "ffn": 88,
    "out_hidden": 80,
    "patch": 4,
    "temporal_patch": 2,
    "channels": 3,
    "merge": 2,
    "positions": 16,
}
EVERY = 4
"""Every fourth layer is full attention."""


def tiny_hybrid(kind: str, tied: bool = False, linear_layers: Iterable[int] | None = None, **text: int) -> ModelConfig:
    """A tiny Qwen3.5 or Qwen3-Next.

    Args:
        kind: qwen3_5 or qwen3_5_moe (with a tower), qwen3_5_text, qwen3_5_moe_text or qwen3_next (without). MoE: six
            experts, two chosen, and a shared one with a gate.
        tied: whether the embedding is the output layer too; with `mtp` megatron-core cannot save it in a pipeline.
        linear_layers: the layers with a Gated DeltaNet; None: all but every fourth. The last layer has to be attention
            where there is an MTP head, which megatron-core makes like the last layer.
        text: other sizes of the language model, by TextConfig's field names; `mtp=0` for no MTP head.
    """
    moe = kind in ("qwen3_5_moe", "qwen3_5_moe_text", "qwen3_next")
    sizes = {**_TEXT, "tied": tied, **(_EXPERTS if moe else {}), **text}
    usual = (i for i in range(sizes["layers"]) if (i + 1) % EVERY)
    linear = frozenset(usual if linear_layers is None else linear_layers)
    tower = VisionConfig(**{**_VISION, "out_hidden": sizes["hidden"]}) if kind in ("qwen3_5", "qwen3_5_moe") else None
    return ModelConfig(kind, TextConfig(**sizes, linear_layers=linear), tower)
