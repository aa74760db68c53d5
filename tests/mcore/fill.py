"""What a rank's parameters hold, computed from Hugging Face tensors as a trainer's loader computes it: by slicing, parameter by parameter.

Written apart from vlconv's tables on purpose: if both are wrong, they are not wrong in the same way.

    expected(name, place, layer, config, hf, rows)   one local parameter; name as the module has it, layer global
    fill(chunk, place, config, hf)                   all of a model chunk's parameters
    whole(config, hf, spec)                          the model unsharded, one tensor per layer: the canonical mcore names
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from vlconv.converters.models.config import ModelConfig

from .topology import Place

if TYPE_CHECKING:
    from .model import Qwen3VL

Tensors = dict[str, Tensor]

LANGUAGE = "model.language_model"
VISION = "model.visual"

# A norm is a module of its own, or lives in the linear layer behind it; after this, the kinds are spelled alike.
_NORMS = {
    "input_layernorm.": "input_norm.",
    "self_attention.linear_qkv.layer_norm_": "input_norm.",
    "pre_mlp_layernorm.": "mlp_norm.",
    "mlp.linear_fc1.layer_norm_": "mlp_norm.",
}
_EXPERT = re.compile(r"mlp\.experts\.(?:local_experts\.(\d+)\.)?linear_fc([12])\.weight(\d*)")


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
    if rest == "embedding.word_embeddings.weight":
        return _vocabulary(hf[f"{LANGUAGE}.embed_tokens.weight"], place, rows)
    if rest == "output_layer.weight":
        return _vocabulary(hf[f"{LANGUAGE}.embed_tokens.weight" if config.text.tied else "lm_head.weight"], place, rows)
    if rest == "decoder.final_layernorm.weight":
        return hf[f"{LANGUAGE}.norm.weight"]
    return _language_layer(_plain(rest.split(".", 3)[3]), f"{LANGUAGE}.layers.{layer}", place, config, hf)


def padding_rows(name: str, place: Place, config: ModelConfig, rows: int) -> int:
    """How many of a local parameter's last rows are vocabulary padding, which may hold anything."""
    if not name.endswith(("embedding.word_embeddings.weight", "output_layer.weight")):
        return 0
    real = config.text.vocab - place.tp_rank * rows
    return rows - min(max(real, 0), rows)


def fill(chunk: Qwen3VL, place: Place, config: ModelConfig, hf: Tensors) -> None:
    """Give every parameter of a model chunk its values, and their dtype."""
    for name, parameter in chunk.named_parameters():
        values = expected(name, place, layer_of(chunk, name), config, hf, parameter.shape[0])
        assert values.shape == parameter.shape, f"{name}: {tuple(values.shape)}, the model has {tuple(parameter.shape)}"
        parameter.data = values.clone()


def layer_of(chunk: Qwen3VL, name: str) -> int:
    """The global number of a parameter's language layer; -1 for other parameters."""
    return chunk.layer_number(name) if name.startswith("language_model.decoder.layers.") else -1


def whole(config: ModelConfig, hf: Tensors, te: bool = True) -> Tensors:
    """Every tensor of the model unsharded and unpadded, one for each layer, experts on a leading axis.

    Args:
        config: the model.
        hf: Hugging Face tensors under the Hub's names.
        te: whether norms are named as with Transformer Engine, or as megatron-core's local modules name them.
    """
    tensors = {}
    for name in _whole_names(config, te):
        layer = int(found[1]) if (found := re.match(r"language_model\.decoder\.layers\.(\d+)", name)) else -1
        if ".experts.experts." in name:
            each = [name.replace("experts.experts", f"experts.local_experts.{e}") for e in range(config.text.experts)]
            tensors[name] = torch.stack([expected(n, Place(), layer, config, hf, 0) for n in each])
        else:
            tensors[name] = expected(name, Place(), layer, config, hf, config.text.vocab).clone()
    return tensors


def _whole_names(config: ModelConfig, te: bool) -> list[str]:
    qkv_norm, fc1_norm = ("self_attention.linear_qkv.layer_norm_", "mlp.linear_fc1.layer_norm_") if te else ("input_layernorm.", "pre_mlp_layernorm.")
    names = ["language_model.embedding.word_embeddings.weight", "language_model.decoder.final_layernorm.weight"]
    names += [] if config.text.tied else ["language_model.output_layer.weight"]
    for layer in range(config.text.layers):
        moe = config.text.is_moe(layer)
        kinds = [f"{qkv_norm}weight", ("pre_mlp_layernorm." if moe else fc1_norm) + "weight"]
        kinds += [f"self_attention.{m}.weight" for m in ("linear_qkv", "linear_proj", "q_layernorm", "k_layernorm")]
        kinds += [f"mlp.{m}.weight" for m in (("router", "experts.experts.linear_fc1", "experts.experts.linear_fc2") if moe else ("linear_fc1", "linear_fc2"))]
        names += [f"language_model.decoder.layers.{layer}.{kind}" for kind in kinds]
    modules = ["patch_embed.proj.", *_merger_names("merger")]
    for block in range(config.vision.depth):
        at = f"decoder.layers.{block}"
        linear = ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
        modules += [f"{at}.{qkv_norm}", f"{at}.{fc1_norm}", *(f"{at}.{m}." for m in linear)]
    for merger in range(len(config.vision.deepstack)):
        modules += _merger_names(f"decoder.deepstack_merger_list.{merger}")
    return [*names, "vision_model.pos_embed.weight", *(f"vision_model.{m}{kind}" for m in modules for kind in ("weight", "bias"))]


def _merger_names(at: str) -> list[str]:
    return [f"{at}.{module}." for module in ("patch_norm", "linear_fc1", "linear_fc2")]


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
    if kind == "self_attention.linear_qkv.weight":
        return _query_groups(h, place, config, hf)
    if kind == "self_attention.linear_proj.weight":
        return _columns(hf[f"{h}.self_attn.o_proj.weight"], place.tp, place.tp_rank)
    if kind == "mlp.linear_fc1.weight":
        return torch.cat([_rows(hf[f"{h}.mlp.{half}_proj.weight"], place.tp, place.tp_rank) for half in ("gate", "up")])
    if kind == "mlp.linear_fc2.weight":
        return _columns(hf[f"{h}.mlp.down_proj.weight"], place.tp, place.tp_rank)
    return _expert(kind, h, place, config, hf)


def _query_groups(h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """The rank's query groups, each: its query heads, its key head, its value head."""
    c = config.text
    q, k, v = (hf[f"{h}.self_attn.{x}_proj.weight"].split(c.head_dim) for x in "qkv")
    per_rank, per_group = c.groups // place.tp, c.heads // c.groups
    heads: list[Tensor] = []
    for group in range(place.tp_rank * per_rank, (place.tp_rank + 1) * per_rank):
        heads += [*q[group * per_group : (group + 1) * per_group], k[group], v[group]]
    return torch.cat(heads)


def _expert(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    """One local expert's fc1 or fc2. The Hub holds gate and up side by side as columns, and every expert transposed."""
    found = _EXPERT.fullmatch(kind)
    if found is None:
        raise KeyError(f"no formula for {kind}")
    expert = place.ep_rank * (config.text.experts // place.ep) + int(found[1] or found[3])
    if found[2] == "2":
        return _columns(hf[f"{h}.mlp.experts.down_proj"][expert].T, place.etp, place.etp_rank).contiguous()
    gate, up = hf[f"{h}.mlp.experts.gate_up_proj"][expert].T.split(config.text.moe_ffn)
    return torch.cat([_rows(gate, place.etp, place.etp_rank), _rows(up, place.etp, place.etp_rank)])


def _vision(rest: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    if rest.startswith("decoder.layers."):
        block, kind = rest.split(".", 3)[2:]
        return _vision_block(_plain(kind), f"{VISION}.blocks.{block}", place, config, hf)
    if rest.startswith(("merger.", "decoder.deepstack_merger_list.")):
        at, module, kind = rest.removeprefix("decoder.").rsplit(".", 2)
        tensor = hf[f"{VISION}.{at}.{module.replace('patch_norm', 'norm')}.{kind}"]
        return _linear(f"{module}.{kind}", tensor, place)
    return hf[f"{VISION}.{rest}"]


def _vision_block(kind: str, h: str, place: Place, config: ModelConfig, hf: Tensors) -> Tensor:
    module, _, last = kind.rpartition(".")
    theirs = {"input_norm": "norm1", "mlp_norm": "norm2", "self_attention.linear_proj": "attn.proj"}
    if module == "self_attention.linear_qkv":
        qkv = hf[f"{h}.attn.qkv.{last}"]
        # [3, heads, head_dim, …] -> [heads, 3, head_dim, …]: every head with its own q, k, v.
        per_head = qkv.reshape(3, config.vision.heads, -1, *qkv.shape[1:]).transpose(0, 1)
        return _rows(per_head, place.tp, place.tp_rank).reshape(-1, *qkv.shape[1:])
    return _linear(kind, hf[f"{h}.{theirs.get(module, module)}.{last}"], place)


def _linear(kind: str, tensor: Tensor, place: Place) -> Tensor:
    """An ungated layer's part: fc1 by rows, with its bias; proj and fc2 by columns, their bias whole; norms whole."""
    if kind.endswith(("linear_fc1.weight", "linear_fc1.bias")):
        return _rows(tensor, place.tp, place.tp_rank)
    if kind.endswith(("linear_fc2.weight", "linear_proj.weight")):
        return _columns(tensor, place.tp, place.tp_rank)
    return tensor
