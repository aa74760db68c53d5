"""Weights by the formulas: into a rank's model, or the whole model under mcore names.

fill(chunk, place, config, hf)     every parameter of a model chunk of megatron-core's
whole(config, hf)                  {canonical mcore name: full tensor}, one for each layer
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch

from vlconv.converters.models.shared.config import ModelConfig

from .formulas import Tensors, expected
from .topology import Place

if TYPE_CHECKING:
    from .model import Chunk


def fill(chunk: Chunk, place: Place, config: ModelConfig, hf: Tensors) -> None:
    """Give every parameter of a model chunk its values, and their dtype."""
    for name, parameter in chunk.named_parameters():
        values = expected(name, place, layer_of(chunk, name), config, hf, parameter.shape[0])
        assert values.shape == parameter.shape, f"{name}: {tuple(values.shape)}, the model has {tuple(parameter.shape)}"
        parameter.data = values.clone()


def layer_of(chunk: Chunk, name: str) -> int:
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
    for name in _language(config, te) + _vision(config, te):
        layer = int(found[1]) if (found := re.match(r"language_model\.decoder\.layers\.(\d+)", name)) else -1
        if ".experts.experts." in name:
            each = [name.replace("experts.experts", f"experts.local_experts.{e}") for e in range(config.text.experts)]
            tensors[name] = torch.stack([expected(n, Place(), layer, config, hf, 0) for n in each])
        else:
            tensors[name] = expected(name, Place(), layer, config, hf, config.text.vocab).clone()
    return tensors


def _language(config: ModelConfig, te: bool) -> list[str]:
    names = ["embedding.word_embeddings.weight", "decoder.final_layernorm.weight"] + (
        [] if config.text.tied else ["output_layer.weight"]
    )
    attention = ["linear_qkv.weight", "linear_proj.weight"]
    attention += (
        ["linear_qkv.bias"] if config.model_type == "qwen2_5_vl" else ["q_layernorm.weight", "k_layernorm.weight"]
    )
    for layer in range(config.text.layers):
        moe = config.text.is_moe(layer)
        mlp = (
            ["router", "experts.experts.linear_fc1", "experts.experts.linear_fc2"]
            if moe
            else ["linear_fc1", "linear_fc2"]
        )
        input_norm, mlp_norm = _norms(te)
        kinds = [f"{input_norm}weight", "pre_mlp_layernorm.weight" if moe else f"{mlp_norm}weight"]
        kinds += [f"self_attention.{kind}" for kind in attention] + [f"mlp.{module}.weight" for module in mlp]
        names += [f"decoder.layers.{layer}.{kind}" for kind in kinds]
    return [f"language_model.{name}" for name in names]


def _vision(config: ModelConfig, te: bool) -> list[str]:
    old = config.model_type == "qwen2_5_vl"
    linear, norms = [], []
    for block in range(config.vision.depth):
        at = f"decoder.layers.{block}"
        linear += [
            f"{at}.{m}."
            for m in ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
        ]
        norms += [f"{at}.{norm}" for norm in _norms(te)]
    if old:
        linear += ["projection.encoder.linear_fc1.", "projection.encoder.linear_fc2."]
        norms += ["decoder.final_layernorm."]
        names = ["patch_embed.proj.weight"]
    else:
        mergers = ["merger", *(f"decoder.deepstack_merger_list.{i}" for i in range(len(config.vision.deepstack)))]
        linear += ["patch_embed.proj.", *(f"{at}.linear_fc{n}." for at in mergers for n in (1, 2))]
        norms += [f"{at}.patch_norm." for at in mergers]
        names = ["pos_embed.weight"]
    names += [f"{m}{kind}" for m in linear for kind in ("weight", "bias")]
    # Qwen2.5-VL's norms are RMSNorms.
    names += [f"{m}{kind}" for m in norms for kind in (("weight",) if old else ("weight", "bias"))]
    return [f"vision_model.{name}" for name in names]


def _norms(te: bool) -> tuple[str, str]:
    return (
        ("self_attention.linear_qkv.layer_norm_", "mlp.linear_fc1.layer_norm_")
        if te
        else ("input_layernorm.", "pre_mlp_layernorm.")
    )
