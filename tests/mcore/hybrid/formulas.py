"""The formulas of a Gated DeltaNet, of gated attention, and of an MTP head's ends.

Whatever the Hub's dtype, a Gated DeltaNet's own vectors are bfloat16 as all of Megatron's parameters are.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from ..slices import Tensors, columns, rows
from ..topology import Place

MTP_ENDS = {
    "enorm.weight": "mtp.pre_fc_norm_embedding.weight",
    "hnorm.weight": "mtp.pre_fc_norm_hidden.weight",
    "final_layernorm.weight": "mtp.norm.weight",
}


def mtp_end(kind: str, place: Place, hf: Tensors) -> Tensor:
    """A parameter of an MTP layer outside its transformer layer; eh_proj is column-parallel."""
    return rows(hf["mtp.fc.weight"], place.tp, place.tp_rank) if kind == "eh_proj.weight" else hf[MTP_ENDS[kind]]


def gated_query_groups(h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """The rank's query groups, each: its query heads, the gates of these heads, its key head, its value head.

    The Hub has every head's gate behind its query.
    """
    c = config.text
    heads = hf[f"{h}.self_attn.q_proj.weight"].split(c.head_dim)
    q, gate = heads[::2], heads[1::2]
    k, v = (hf[f"{h}.self_attn.{x}_proj.weight"].split(c.head_dim) for x in "kv")
    per_rank, per_group = c.groups // place.tp, c.heads // c.groups
    parts: list[Tensor] = []
    for group in range(place.tp_rank * per_rank, (place.tp_rank + 1) * per_rank):
        own = slice(group * per_group, (group + 1) * per_group)
        parts += [*q[own], *gate[own], k[group], v[group]]
    return torch.cat(parts)


def delta_net(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """A parameter of a Gated DeltaNet.

    Args:
        kind: its name behind `self_attention.`.
        h: the Hub's name of the Gated DeltaNet, `….linear_attn`.
        place: where the rank stands.
        config: the model.
        hf: Hugging Face tensors.
    """
    c = config.text
    if kind == "in_proj.weight":
        return _slices(_projections(h, config, hf), place)
    if kind == "conv1d.weight":
        return _slices(hf[f"{h}.conv1d.weight"].split([c.key_width, c.key_width, c.value_width]), place)
    if kind in ("A_log", "dt_bias"):
        return rows(hf[f"{h}.{kind}"], place.tp, place.tp_rank).bfloat16()
    if kind == "out_norm.weight":
        return (hf[f"{h}.norm.weight"].float() - 1).bfloat16()
    assert kind == "out_proj.weight", f"no formula for {kind}"
    return columns(hf[f"{h}.out_proj.weight"], place.tp, place.tp_rank)


def _slices(parts: tuple[Tensor, ...], place: Place) -> Tensor:
    """The rank's rows of every part, one part behind the other."""
    return torch.cat([rows(part, place.tp, place.tp_rank) for part in parts])


def _projections(h: str, config: ModelConfig, hf: Tensors) -> tuple[Tensor, ...]:
    """Query, key, value, z, beta, alpha, each of all its heads in order."""
    c = config.text
    if f"{h}.in_proj_qkvz.weight" not in hf:
        q, k, v = hf[f"{h}.in_proj_qkv.weight"].split([c.key_width, c.key_width, c.value_width])
        return q, k, v, *(hf[f"{h}.in_proj_{x}.weight"] for x in "zba")
    per_head = c.value_width // c.key_heads
    qkvz = hf[f"{h}.in_proj_qkvz.weight"].unflatten(0, (c.key_heads, -1))
    ba = hf[f"{h}.in_proj_ba.weight"].unflatten(0, (c.key_heads, -1))
    parts = (*qkvz.split([c.key_dim, c.key_dim, per_head, per_head], dim=1), *ba.chunk(2, dim=1))
    return tuple(part.flatten(0, 1) for part in parts)
