"""Canonical mcore names of what hybrids have of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from ..slices import Tensors

DELTA_NET = [
    f"self_attention.{name}"
    for name in (
        "in_proj.layer_norm_weight",
        "in_proj.weight",
        "conv1d.weight",
        "dt_bias",
        "A_log",
        "out_norm.weight",
        "out_proj.weight",
    )
]
"""in_proj [2K + 2V + 2nv, H]: all queries, all keys, values, z, beta, alpha. conv1d [2K + V, 1, kernel]: likewise."""

SHARED_EXPERT = [f"mlp.shared_experts.{name}" for name in ("linear_fc1.weight", "linear_fc2.weight", "gate_weight")]

MTP_ENDS = [f"{name}.weight" for name in ("enorm", "hnorm", "eh_proj", "final_layernorm")]

PARTS = {"in_proj.weight": ("query", "key", "value", "z", "beta", "alpha"), "conv1d.weight": ("query", "key", "value")}
"""The parts in which torch_dist holds a tensor, each under a key of its own."""


def joined(state: Tensors) -> Tensors:
    """Canonical tensors of a torch_dist checkpoint's: what it holds in parts is put together again."""
    state = dict(state)
    for module, parts in PARTS.items():
        for name in [name.removesuffix(".query") for name in state if name.endswith(f".{module}.query")]:
            state[name] = torch.cat([state.pop(f"{name}.{part}") for part in parts])
    return state


def widths(config: ModelConfig) -> list[int]:
    """Rows of the parts of in_proj; the first three are conv1d's."""
    c = config.text
    return [c.key_width, c.key_width, c.value_width, c.value_width, c.value_heads, c.value_heads]


def side_by_side(flat: Tensor, config: ModelConfig, ranks: int) -> Tensor:
    """in_proj or conv1d as the tensor-parallel ranks have it, one rank's tensor behind the other's."""
    parts = widths(config)[: 3 if flat.dim() == 3 else 6]
    pieces = [part.chunk(ranks) for part in flat.split(parts)]
    return torch.cat([piece[rank] for rank in range(ranks) for piece in pieces])
