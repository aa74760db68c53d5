"""Mistakes that keep every name and shape: what a forward pass has to tell from the truth."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from ..slices import Tensors
from .names import side_by_side, widths

Mistake = Callable[[Tensors, ModelConfig], Tensors]


def _each(state: Tensors, end: str, change: Callable[[Tensor], Tensor]) -> Tensors:
    """The tensors of the language model whose names end so are changed."""
    changed = {name: change(t) for name, t in state.items() if name.endswith(end) and not name.startswith("vision_")}
    assert changed
    return {**state, **changed}


def _gate_behind_each_query(state: Tensors, config: ModelConfig) -> Tensors:
    """ms-swift's order within a query group: q0, gate0, q1, gate1, k, v."""
    c = config.text
    per_group = c.heads // c.groups

    def change(qkv: Tensor) -> Tensor:
        groups = qkv.unflatten(0, (c.groups, 2 * per_group + 2, c.head_dim))
        q, gate, kv = groups.split([per_group, per_group, 2], dim=1)
        return torch.cat([torch.stack([q, gate], dim=2).flatten(1, 2), kv], dim=1).flatten(0, 2)

    return _each(state, "linear_qkv.weight", change)


def _ones_centred(state: Tensors, _config: ModelConfig) -> Tensors:
    """The output norm as the Hub has it."""
    return _each(state, "out_norm.weight", lambda norm: norm + 1)


def _ranks_side_by_side(end: str) -> Mistake:
    """The tensors of two tensor-parallel ranks, one behind the other as if they were flat."""
    return lambda state, config: _each(state, end, lambda flat: side_by_side(flat, config, 2))


def _exchanged(end: str, first: int, second: int) -> Mistake:
    """Two parts of in_proj in each other's place."""

    def mistake(state: Tensors, config: ModelConfig) -> Tensors:
        def change(whole: Tensor) -> Tensor:
            pieces = list(whole.split(widths(config)))
            pieces[first], pieces[second] = pieces[second], pieces[first]
            return torch.cat(pieces)

        return _each(state, end, change)

    return mistake


def _reversed(end: str) -> Mistake:
    return lambda state, _config: _each(state, end, lambda tensor: tensor.flip(0))


IN_MEGATRON: dict[str, Mistake] = {
    "gate behind each query": _gate_behind_each_query,
    "output norm around one": _ones_centred,
    "ranks of in_proj side by side": _ranks_side_by_side("in_proj.weight"),
    "ranks of conv1d side by side": _ranks_side_by_side("conv1d.weight"),
    "query and key exchanged": _exchanged("in_proj.weight", 0, 1),
    "value and z exchanged": _exchanged("in_proj.weight", 2, 3),
    "beta and alpha exchanged": _exchanged("in_proj.weight", 4, 5),
    "heads of A_log reversed": _reversed("A_log"),
    "heads of dt_bias reversed": _reversed("dt_bias"),
}


def _gates_behind_queries(hf: Tensors, config: ModelConfig) -> Tensors:
    """q_proj as if it held all queries, then all gates."""
    c = config.text

    def change(q: Tensor) -> Tensor:
        return q.unflatten(0, (2, c.heads, c.head_dim)).transpose(0, 1).flatten(0, 2)

    return _each(hf, "self_attn.q_proj.weight", change)


def _flat(hf: Tensors, config: ModelConfig) -> Tensors:
    """Qwen3-Next's in_proj_qkvz as if it held all queries, all keys, all values, all z."""
    c = config.text

    def change(qkvz: Tensor) -> Tensor:
        parts = qkvz.split(widths(config)[:4])
        return torch.cat([part.unflatten(0, (c.key_heads, -1)) for part in parts], dim=1).flatten(0, 1)

    return _each(hf, "in_proj_qkvz.weight", change)


ON_THE_HUB: dict[str, Mistake] = {"gates behind queries": _gates_behind_queries, "key heads as if flat": _flat}


def _norms_exchanged(state: Tensors, _config: ModelConfig) -> Tensors:
    """The norm of the embedding on the hidden state, and the other way round."""
    first, second = (next(n for n in state if n.endswith(f"{end}norm.weight")) for end in (".e", ".h"))
    return {**state, first: state[second], second: state[first]}


def _halves_exchanged(state: Tensors, _config: ModelConfig) -> Tensors:
    """eh_proj as if the hidden state came before the embedding."""
    return _each(state, "eh_proj.weight", lambda fc: fc.roll(fc.shape[1] // 2, dims=1))


def _gate_behind_each_query_of_mtp(state: Tensors, config: ModelConfig) -> Tensors:
    """ms-swift's order in the head alone."""
    changed = _gate_behind_each_query(state, config)
    return {**state, **{name: t for name, t in changed.items() if "mtp.layers." in name}}


IN_MTP: dict[str, Mistake] = {
    "norms exchanged": _norms_exchanged,
    "halves exchanged": _halves_exchanged,
    "gate behind each query": _gate_behind_each_query_of_mtp,
}
