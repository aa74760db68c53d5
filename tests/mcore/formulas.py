"""The formulas: what one local parameter holds, computed from Hugging Face tensors as a trainer's loader computes it,
by slicing.

Written apart from vlconv's tables on purpose: if both are wrong, they are not wrong in the same way.
"""

from __future__ import annotations

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from .experts import expert
from .families import hybrid, language_top
from .hybrid.formulas import delta_net, gated_query_groups, mtp_end
from .norms import plain
from .slices import Tensors, columns, gated, rows
from .topology import Place
from .vision_formulas import vision

__all__ = ["Tensors", "expected", "padding_rows"]

_WHOLE = {
    "input_norm.weight": "input_layernorm",
    "mlp_norm.weight": "post_attention_layernorm",
    "self_attention.q_layernorm.weight": "self_attn.q_norm",
    "self_attention.k_layernorm.weight": "self_attn.k_norm",
    "mlp.router.weight": "mlp.gate",
    "mlp.shared_experts.gate_weight": "mlp.shared_expert_gate",
}


def expected(name: str, place: Place, layer: int, config: ModelConfig, hf: Tensors, local_rows: int) -> Tensor:
    """The values of a local parameter.

    Args:
        name: as the rank's module spells it, layer and expert numbers local; the language model's with
            `language_model.` or without.
        place: where the rank stands.
        layer: the global number of the parameter's language layer, from 0; anything for other parameters.
        config: the model.
        hf: Hugging Face tensors under the Hub's names.
        local_rows: rows of the local parameter; they tell the padding of the embedding and the output layer.
    """
    if name.startswith("vision_model."):
        return vision(name.removeprefix("vision_model."), place, config, hf)
    rest, top = name.removeprefix("language_model."), language_top(config)
    if rest == "embedding.word_embeddings.weight":
        return _vocabulary(hf[f"{top}.embed_tokens.weight"], place, local_rows)
    if rest == "output_layer.weight":
        head = f"{top}.embed_tokens.weight" if config.text.tied else "lm_head.weight"
        return _vocabulary(hf[head], place, local_rows)
    if rest == "decoder.final_layernorm.weight":
        return hf[f"{top}.norm.weight"]
    if rest.startswith("mtp."):
        _, _, number, kind = rest.split(".", 3)
        block, _, inner = kind.partition(".")
        if block not in ("transformer_layer", "mtp_model_layer"):
            return mtp_end(kind, place, hf)
        return _language_layer(plain(inner), f"mtp.layers.{number}", place, config, hf)
    return _language_layer(plain(rest.split(".", 3)[3]), f"{top}.layers.{layer}", place, config, hf)


def padding_rows(name: str, place: Place, config: ModelConfig, local_rows: int) -> int:
    """How many of a local parameter's last rows are vocabulary padding, which may hold anything."""
    if not name.endswith(("embedding.word_embeddings.weight", "output_layer.weight")):
        return 0
    real = config.text.vocab - place.tp_rank * local_rows
    return local_rows - min(max(real, 0), local_rows)


def _vocabulary(table: Tensor, place: Place, local_rows: int) -> Tensor:
    """This rank's rows; what lies behind the vocabulary is noise, as nothing ever trained it."""
    shape = (local_rows * place.tp - table.shape[0], table.shape[1])
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(99))
    return rows(torch.cat([table, noise.to(table.dtype)]), place.tp, place.tp_rank)


def _language_layer(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    module, _, last = kind.rpartition(".")
    if kind in _WHOLE:
        return hf[f"{h}.{_WHOLE[kind]}.weight"]
    if module == "self_attention.linear_qkv":
        if hybrid(config):
            return gated_query_groups(h, place, config, hf)
        return _query_groups(h, last, place, config, hf)
    if kind == "self_attention.linear_proj.weight":
        return columns(hf[f"{h}.self_attn.o_proj.weight"], place.tp, place.tp_rank)
    if kind.startswith("self_attention."):
        return delta_net(kind.removeprefix("self_attention."), f"{h}.linear_attn", place, config, hf)
    if kind.startswith("mlp.shared_experts."):
        return gated(module.removeprefix("mlp.shared_experts."), last, f"{h}.mlp.shared_expert", place, hf)
    if kind.startswith("mlp.experts."):
        return expert(kind, h, place, config, hf)
    assert module in ("mlp.linear_fc1", "mlp.linear_fc2"), f"no formula for {kind}"
    return gated(module.removeprefix("mlp."), last, f"{h}.mlp", place, hf)


def _query_groups(h: str, last: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """The rank's query groups, each: its query heads, its key head, its value head. Weight or bias."""
    c = config.text
    q, k, v = (hf[f"{h}.self_attn.{x}_proj.{last}"].split(c.head_dim) for x in "qkv")
    per_group = c.heads // c.groups
    ours = range(place.tp_rank * c.groups // place.tp, -(-(place.tp_rank + 1) * c.groups // place.tp))
    heads: list[Tensor] = []
    for group in ours:
        heads += [*q[group * per_group : (group + 1) * per_group], k[group], v[group]]
    rows = torch.cat(heads)
    # Of more ranks than groups each has a share of its group's rows; megatron-core gathers them when it computes.
    share = max(1, place.tp // c.groups)
    return rows.chunk(share)[place.tp_rank % share]
