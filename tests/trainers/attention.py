"""Self attention as Megatron's linear_qkv: rows of one query group after another's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .sizes import Sizes

Tensors = dict[str, Any]


def grouped(s: Sizes, layer: Tensors, last: str) -> torch.Tensor:
    """The group's query heads, its key head, its value head."""
    q, k, v = (layer[f"self_attn.{x}_proj.{last}"].chunk(s.groups) for x in "qkv")
    return torch.cat([torch.cat(group) for group in zip(q, k, v, strict=True)])


def gates_behind(s: Sizes, layer: Tensors, last: str) -> torch.Tensor:
    """megatron-core: all query heads of a group, then all their gates, then key and value. The Hub has each head's gate
    behind the head.
    """
    halves = layer[f"self_attn.q_proj.{last}"].chunk(2 * s.heads)
    queries, gates = halves[0::2], halves[1::2]
    keys, values = (layer[f"self_attn.{x}_proj.{last}"].chunk(s.groups) for x in "kv")
    rows, many = [], s.heads // s.groups
    for g in range(s.groups):
        mine = slice(g * many, (g + 1) * many)
        rows += [*queries[mine], *gates[mine], keys[g], values[g]]
    return torch.cat(rows)


def attention(s: Sizes, layer: Tensors, order: Callable[[Sizes, Tensors, str], torch.Tensor]) -> Tensors:
    """All of it but the norm before it; `grouped` with gated queries is ms-swift's order: each gate behind its head."""
    out = {"self_attention.linear_proj.weight": layer["self_attn.o_proj.weight"]}
    for last in ("weight", "bias"):
        if f"self_attn.q_proj.{last}" in layer:
            out[f"self_attention.linear_qkv.{last}"] = order(s, layer, last)
    for x in "qk":
        if f"self_attn.{x}_norm.weight" in layer:
            out[f"self_attention.{x}_layernorm.weight"] = layer[f"self_attn.{x}_norm.weight"]
    return out
