"""The formulas: what one local parameter holds, computed from Hugging Face tensors as a trainer's loader computes it,
by slicing.

Written apart from vlconv's tables on purpose: if both are wrong, they are not wrong in the same way.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor

from vlconv.converters.models.shared.config import ModelConfig

from .topology import Place

Tensors = dict[str, Tensor]

# A norm is a module of its own, or lives in the linear layer behind it; after this, the kinds are spelled alike.
_NORMS = {
    "input_layernorm.": "input_norm.",
    "self_attention.linear_qkv.layer_norm_": "input_norm.",
    "pre_mlp_layernorm.": "mlp_norm.",
    "mlp.linear_fc1.layer_norm_": "mlp_norm.",
}
_EXPERT = re.compile(r"mlp\.experts\.(?:local_experts\.(\d+)\.)?linear_fc([12])\.weight(\d*)")


def language_top(config: ModelConfig) -> str:
    """The Hub's prefix of the language model."""
    return "model" if config.model_type == "qwen2_5_vl" else "model.language_model"


def vision_top(config: ModelConfig) -> str:
    """The Hub's prefix of the vision tower."""
    return "visual" if config.model_type == "qwen2_5_vl" else "model.visual"


def expected(name: str, place: Place, layer: int, config: ModelConfig, hf: Tensors, rows: int) -> Tensor:
    """The values of a local parameter.

    Args:
        name: as the rank's module spells it, layer and expert numbers local.
        place: where the rank stands.
        layer: the global number of the parameter's language layer, from 0; anything for other parameters.
        config: the model.
        hf: Hugging Face tensors under the Hub's names.
        rows: rows of the local parameter; they tell the padding of the embedding and the output layer.
    """
    tower, _, rest = name.partition(".")
    if tower == "vision_model":
        return _vision(rest, place, config, hf)
    top = language_top(config)
    if rest == "embedding.word_embeddings.weight":
        return _vocabulary(hf[f"{top}.embed_tokens.weight"], place, rows)
    if rest == "output_layer.weight":
        return _vocabulary(hf[f"{top}.embed_tokens.weight" if config.text.tied else "lm_head.weight"], place, rows)
    if rest == "decoder.final_layernorm.weight":
        return hf[f"{top}.norm.weight"]
    return _language_layer(_plain(rest.split(".", 3)[3]), f"{top}.layers.{layer}", place, config, hf)


def padding_rows(name: str, place: Place, config: ModelConfig, rows: int) -> int:
    """How many of a local parameter's last rows are vocabulary padding, which may hold anything."""
    if not name.endswith(("embedding.word_embeddings.weight", "output_layer.weight")):
        return 0
    real = config.text.vocab - place.tp_rank * rows
    return rows - min(max(real, 0), rows)


def _plain(suffix: str) -> str:
    for spelled, plain in _NORMS.items():
        if suffix.startswith(spelled):
            return plain + suffix[len(spelled) :]
    return suffix


def _vocabulary(table: Tensor, place: Place, rows: int) -> Tensor:
    """This rank's rows; what lies behind the vocabulary is noise, as nothing ever trained it."""
    noise = torch.randn((rows * place.tp - table.shape[0], table.shape[1]), generator=torch.Generator().manual_seed(99))
    return _rows(torch.cat([table, noise.to(table.dtype)]), place.tp, place.tp_rank)


def _rows(tensor: Tensor, size: int, rank: int) -> Tensor:
    """A column-parallel layer's part: output rows."""
    return tensor.chunk(size, dim=0)[rank]


def _columns(tensor: Tensor, size: int, rank: int) -> Tensor:
    """A row-parallel layer's part: input columns."""
    return tensor.chunk(size, dim=1)[rank]


def _language_layer(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    whole_ones = {
        "input_norm.weight": "input_layernorm",
        "mlp_norm.weight": "post_attention_layernorm",
        "self_attention.q_layernorm.weight": "self_attn.q_norm",
        "self_attention.k_layernorm.weight": "self_attn.k_norm",
        "mlp.router.weight": "mlp.gate",
    }
    if kind in whole_ones:
        return hf[f"{h}.{whole_ones[kind]}.weight"]
    if kind.startswith("self_attention.linear_qkv."):
        return _query_groups(h, kind.rpartition(".")[2], place, config, hf)
    if kind == "self_attention.linear_proj.weight":
        return _columns(hf[f"{h}.self_attn.o_proj.weight"], place.tp, place.tp_rank)
    if kind.startswith("mlp.experts."):
        return _expert(kind, h, place, config, hf)
    return _gated(kind, h, place, hf)


def _query_groups(h: str, last: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """The rank's query groups, each: its query heads, its key head, its value head. Weight or bias."""
    c = config.text
    q, k, v = (hf[f"{h}.self_attn.{x}_proj.{last}"].split(c.head_dim) for x in "qkv")
    per_rank, per_group = c.groups // place.tp, c.heads // c.groups
    heads: list[Tensor] = []
    for group in range(place.tp_rank * per_rank, (place.tp_rank + 1) * per_rank):
        heads += [*q[group * per_group : (group + 1) * per_group], k[group], v[group]]
    return torch.cat(heads)


def _gated(kind: str, h: str, place: Place, hf: Tensors) -> Tensor:
    """A gated MLP's part: fc1 is the rank's rows of gate, then the rank's rows of up, weight and bias alike."""
    last = kind.rpartition(".")[2]
    if kind.startswith("mlp.linear_fc1."):
        return torch.cat([_rows(hf[f"{h}.mlp.{half}_proj.{last}"], place.tp, place.tp_rank) for half in ("gate", "up")])
    down = hf[f"{h}.mlp.down_proj.{last}"]
    return _columns(down, place.tp, place.tp_rank) if last == "weight" else down


def _expert(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """One local expert's fc1 or fc2. The Hub holds gate and up side by side as columns, and every expert transposed."""
    found = _EXPERT.fullmatch(kind)
    assert found, f"no formula for {kind}"
    expert = place.ep_rank * (config.text.experts // place.ep) + int(found[1] or found[3])
    if found[2] == "2":
        return _columns(hf[f"{h}.mlp.experts.down_proj"][expert].T, place.etp, place.etp_rank).contiguous()
    gate, up = hf[f"{h}.mlp.experts.gate_up_proj"][expert].T.split(config.text.moe_ffn)
    return torch.cat([_rows(gate, place.etp, place.etp_rank), _rows(up, place.etp, place.etp_rank)])


def _vision(rest: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    top = vision_top(config)
    if rest.startswith("decoder.layers."):
        block, kind = rest.split(".", 3)[2:]
        return _vision_block(_plain(kind), f"{top}.blocks.{block}", place, config, hf)
    # Qwen3-VL's mergers; Qwen2.5-VL's merger is the decoder's last norm and a projection.
    theirs = rest.removeprefix("decoder.").replace("patch_norm", "norm")
    theirs = theirs.replace("final_layernorm", "merger.ln_q").replace("projection.encoder.linear_fc1", "merger.mlp.0")
    theirs = theirs.replace("projection.encoder.linear_fc2", "merger.mlp.2")
    return _linear(rest, hf[f"{top}.{theirs}"], place)


def _vision_block(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    module, _, last = kind.rpartition(".")
    if module == "self_attention.linear_qkv":
        qkv = hf[f"{h}.attn.qkv.{last}"]
        # [3, heads, head_dim, …] -> [heads, 3, head_dim, …]: every head with its own q, k, v.
        per_head = qkv.reshape(3, config.vision.heads, -1, *qkv.shape[1:]).transpose(0, 1)
        return _rows(per_head, place.tp, place.tp_rank).reshape(-1, *qkv.shape[1:])
    if config.model_type == "qwen2_5_vl" and module.startswith("mlp."):
        return _gated(kind, h, place, hf)
    theirs = {"input_norm": "norm1", "mlp_norm": "norm2", "self_attention.linear_proj": "attn.proj"}
    return _linear(kind, hf[f"{h}.{theirs.get(module, module)}.{last}"], place)


def _linear(kind: str, tensor: Tensor, place: Place) -> Tensor:
    """A part of what is not gated: fc1 by rows, with its bias; proj and fc2 by columns, their bias whole.

    All else whole.
    """
    if kind.endswith(("linear_fc1.weight", "linear_fc1.bias")):
        return _rows(tensor, place.tp, place.tp_rank)
    if kind.endswith(("linear_fc2.weight", "linear_proj.weight")):
        return _columns(tensor, place.tp, place.tp_rank)
    return tensor
