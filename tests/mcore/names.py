"""Canonical mcore names: every tensor of a model unsharded, one for each layer, experts under one name."""

from __future__ import annotations

from vlconv.converters.models.shared.config import ModelConfig

from .families import biased, old_tower
from .hybrid.names import DELTA_NET, MTP_ENDS, SHARED_EXPERT


def language_names(config: ModelConfig, te: bool) -> list[str]:
    """Names of the language model, without prefix.

    Args:
        config: the model.
        te: whether norms are named as with Transformer Engine, or as megatron-core's local modules name them.
    """
    names = ["embedding.word_embeddings.weight", "decoder.final_layernorm.weight"]
    names += [] if config.text.tied else ["output_layer.weight"]
    for layer in range(config.text.layers):
        mixer = DELTA_NET if config.text.is_linear(layer) else _attention(config, te)
        kinds = mixer + _mlp(config, config.text.is_moe(layer), te)
        names += [f"decoder.layers.{layer}.{kind}" for kind in kinds]
    for layer in range(config.text.mtp):
        kinds = _attention(config, te) + _mlp(config, config.text.experts > 0, te)
        names += [f"mtp.layers.{layer}.{kind}" for kind in MTP_ENDS]
        names += [f"mtp.layers.{layer}.transformer_layer.{kind}" for kind in kinds]
    return names


def _attention(config: ModelConfig, te: bool) -> list[str]:
    own = ["linear_qkv.weight", "linear_proj.weight"]
    own += ["linear_qkv.bias"] if biased(config) else ["q_layernorm.weight", "k_layernorm.weight"]
    return [f"{_norms(te)[0]}weight", *(f"self_attention.{kind}" for kind in own)]


def _mlp(config: ModelConfig, moe: bool, te: bool) -> list[str]:
    if not moe:
        return [f"{_norms(te)[1]}weight", "mlp.linear_fc1.weight", "mlp.linear_fc2.weight"]
    modules = ["router", "experts.experts.linear_fc1", "experts.experts.linear_fc2"]
    shared = SHARED_EXPERT if config.text.shared_ffn else []
    return ["pre_mlp_layernorm.weight", *(f"mlp.{module}.weight" for module in modules), *shared]


def vision_names(config: ModelConfig, te: bool) -> list[str]:
    """Names of the tower, with its prefix; none where there is no tower."""
    if config.vision is None:
        return []
    old = old_tower(config)
    linear, norms = [], []
    for block in range(config.vision.depth):
        at = f"decoder.layers.{block}"
        modules = ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2")
        linear += [f"{at}.{m}." for m in modules]
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
