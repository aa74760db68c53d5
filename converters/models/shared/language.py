"""The language model on the Hugging Face side, common to all models, without its prefix."""

from __future__ import annotations

from typing import Any

from ...errors import CorruptError, UnsupportedError, shown
from .config import TextConfig
from .experts import expert_shapes, hf_experts
from .fields import MOST_EXPERTS, MOST_LAYERS, Fields
from .model import Shapes
from .traits import ExpertsOnHub, Traits

LINEAR, FULL = "linear_attention", "full_attention"
"""The kinds of layers that config.json's layer_types names."""

LINEAR_ATTENTION = "linear_attn."
"""What the names of a Gated DeltaNet begin with, below the layer's."""


def text_config(text: Fields, tied: bool, traits: Traits) -> TextConfig:
    """The integers of the language model.

    Args:
        text: the section that holds them.
        tied: whether input and output embeddings are one tensor.
        traits: asked what such a config has fields for.
    """
    layers, heads, groups = (
        text.integer("num_hidden_layers", most=MOST_LAYERS),
        text.integer("num_attention_heads"),
        text.integer("num_key_value_heads"),
    )
    if heads % groups:
        raise CorruptError(
            f"config.json: {text.place('num_attention_heads')} {heads} is not a multiple of "
            f"{text.place('num_key_value_heads')} {groups}"
        )
    experts = _experts_number(text, layers) if traits.experts else 0
    dense = _dense_layers(text, layers) if experts and traits.dense_layers else frozenset()
    needs_ffn = not experts or bool(dense) or text.has("intermediate_size")
    hidden = text.integer("hidden_size")
    return TextConfig(
        layers=layers,
        hidden=hidden,
        heads=heads,
        groups=groups,
        head_dim=text.integer("head_dim") if traits.head_dim_field else _divided(text, hidden, heads),
        ffn=text.integer("intermediate_size") if needs_ffn else 0,
        vocab=text.integer("vocab_size"),
        tied=tied,
        experts=experts,
        moe_ffn=text.integer("moe_intermediate_size") if experts else 0,
        dense_layers=dense,
        shared_ffn=text.integer("shared_expert_intermediate_size") if experts and traits.shared_expert else 0,
        mtp=_mtp_layers(text) if traits.mtp else 0,
        **(_linear_attention(text, layers) if traits.linear_attention else {}),
    )


def _experts_number(text: Fields, layers: int) -> int:
    experts = text.integer("num_experts", "num_local_experts", least=0, most=2**16)
    if layers * experts > MOST_EXPERTS:
        raise CorruptError(
            f"config.json: {text.place('num_hidden_layers')} {layers} times {text.place('num_experts')} {experts} is "
            "more than any model has"
        )
    return experts


def _divided(text: Fields, hidden: int, heads: int) -> int:
    """The head dimension of a model that has no field for it."""
    if hidden % heads:
        raise CorruptError(
            f"config.json: {text.place('hidden_size')} {hidden} is not a multiple of "
            f"{text.place('num_attention_heads')} {heads}"
        )
    return hidden // heads


def _dense_layers(text: Fields, layers: int) -> frozenset[int]:
    """The layers of a MoE model that have one ordinary MLP: those listed, and those the sparse step leaves out."""
    step = text.integer("decoder_sparse_step")
    listed = text.integers("mlp_only_layers", most=layers)
    return frozenset(listed) | frozenset(i for i in range(layers) if (i + 1) % step)


def _mtp_layers(text: Fields) -> int:
    """Layers of the multi-token-prediction head; a config without the field promises none."""
    layers = text.integer("mtp_num_hidden_layers", least=0) if text.has("mtp_num_hidden_layers") else 0
    if layers > 1:
        raise UnsupportedError(
            f"config.json: {text.place('mtp_num_hidden_layers')} is {layers}", "Heads of one layer are converted."
        )
    return layers


def _linear_attention(text: Fields, layers: int) -> dict[str, Any]:
    key_heads, value_heads = text.integer("linear_num_key_heads"), text.integer("linear_num_value_heads")
    if value_heads % key_heads:
        raise CorruptError(
            f"config.json: {text.place('linear_num_value_heads')} {value_heads} is not a multiple of "
            f"{text.place('linear_num_key_heads')} {key_heads}"
        )
    return {
        "linear_layers": _linear_layers(text, layers),
        "key_heads": key_heads,
        "value_heads": value_heads,
        "key_dim": text.integer("linear_key_head_dim"),
        "value_dim": text.integer("linear_value_head_dim"),
        "kernel": text.integer("linear_conv_kernel_dim"),
    }


def _linear_layers(text: Fields, layers: int) -> frozenset[int]:
    """By layer_types, else by full_attention_interval, as transformers takes them."""
    kinds = text.section.get("layer_types")
    if kinds is None:
        interval = text.integer("full_attention_interval")
        return frozenset(i for i in range(layers) if (i + 1) % interval)
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in (LINEAR, FULL) for kind in kinds):
        raise CorruptError(
            f"config.json: {text.place('layer_types')} is {shown(kinds)}, not {layers} times {LINEAR} or {FULL}"
        )
    return frozenset(i for i, kind in enumerate(kinds) if kind == LINEAR)


def text_tensors(c: TextConfig, traits: Traits) -> Shapes:
    """Every tensor of the language decoder but the output layer, without prefix.

    Args:
        c: the language model's integers.
        traits: asked what a layer is made of.
    """
    tensors: Shapes = {"embed_tokens.weight": (c.vocab, c.hidden)}
    for layer in range(c.layers):
        mixer = gated_delta_net(c, traits) if c.is_linear(layer) else _attention(c, traits)
        tensors |= {f"layers.{layer}.{name}": shape for name, shape in (_norms(c) | mixer).items()}
        if c.is_moe(layer):
            tensors |= _experts(c, traits, f"layers.{layer}.mlp", traits.experts_on_hub)
        else:
            tensors |= _mlp(c.ffn, c.hidden, f"layers.{layer}.mlp")
    return tensors | {"norm.weight": (c.hidden,)}


def mtp_tensors(c: TextConfig, traits: Traits) -> Shapes:
    """Every tensor of the multi-token-prediction head, without `mtp.`: one layer of full attention.

    Its experts are one by one, as in Qwen3.5; later releases pack them.
    """
    if not c.mtp:
        return {}
    names = ("pre_fc_norm_embedding.weight", "pre_fc_norm_hidden.weight", "norm.weight")
    tensors: Shapes = {"fc.weight": (c.hidden, 2 * c.hidden)} | dict.fromkeys(names, (c.hidden,))
    tensors |= {f"layers.0.{name}": shape for name, shape in (_norms(c) | _attention(c, traits)).items()}
    if c.experts:
        return tensors | _experts(c, traits, "layers.0.mlp", "per-expert")
    return tensors | _mlp(c.ffn, c.hidden, "layers.0.mlp")


def _norms(c: TextConfig) -> Shapes:
    return {"input_layernorm.weight": (c.hidden,), "post_attention_layernorm.weight": (c.hidden,)}


def _attention(c: TextConfig, traits: Traits) -> Shapes:
    rows = {"q": c.heads * c.head_dim, "k": c.groups * c.head_dim, "v": c.groups * c.head_dim}
    if traits.gated_attention:  # per head: its query, then its gate
        rows["q"] *= 2
    tensors: Shapes = {}
    for part, n in rows.items():
        tensors[f"self_attn.{part}_proj.weight"] = (n, c.hidden)
        if traits.qkv_bias:
            tensors[f"self_attn.{part}_proj.bias"] = (n,)
    if traits.qk_norm:
        tensors |= {"self_attn.q_norm.weight": (c.head_dim,), "self_attn.k_norm.weight": (c.head_dim,)}
    return tensors | {"self_attn.o_proj.weight": (c.hidden, c.heads * c.head_dim)}


def gated_delta_net(c: TextConfig, traits: Traits) -> Shapes:
    """A Gated DeltaNet, names below the layer: rows of all queries, all keys, all values; a gate z, beta and alpha."""
    qkv, z = 2 * c.key_width + c.value_width, c.value_width
    if traits.fused_linear_projections:
        rows = {"in_proj_qkvz": qkv + z, "in_proj_ba": 2 * c.value_heads}
    else:
        rows = {"in_proj_qkv": qkv, "in_proj_z": z, "in_proj_b": c.value_heads, "in_proj_a": c.value_heads}
    tensors: Shapes = {f"{LINEAR_ATTENTION}{name}.weight": (n, c.hidden) for name, n in rows.items()}
    return tensors | {
        f"{LINEAR_ATTENTION}conv1d.weight": (qkv, 1, c.kernel),
        f"{LINEAR_ATTENTION}dt_bias": (c.value_heads,),
        f"{LINEAR_ATTENTION}A_log": (c.value_heads,),
        f"{LINEAR_ATTENTION}norm.weight": (c.value_dim,),
        f"{LINEAR_ATTENTION}out_proj.weight": (c.hidden, c.value_width),
    }


def kept_wide(c: TextConfig) -> tuple[str, ...]:
    """What releases may hold in float32, without prefix: of each Gated DeltaNet the decay and the output norm."""
    return tuple(
        f"layers.{i}.{LINEAR_ATTENTION}{name}" for i in sorted(c.linear_layers) for name in ("A_log", "norm.weight")
    )


def _mlp(ffn: int, hidden: int, name: str) -> Shapes:
    wide: Shapes = {f"{name}.{part}_proj.weight": (ffn, hidden) for part in ("gate", "up")}
    return wide | {f"{name}.down_proj.weight": (hidden, ffn)}


def _experts(c: TextConfig, traits: Traits, name: str, form: ExpertsOnHub) -> Shapes:
    """A router and its experts, and the expert that all tokens pass."""
    tensors: Shapes = {f"{name}.gate.weight": (c.experts, c.hidden)}
    tensors |= expert_shapes(hf_experts(f"{name}.experts", form), c)
    if traits.shared_expert:
        tensors |= _mlp(c.shared_ffn, c.hidden, f"{name}.shared_expert")
        tensors[f"{name}.shared_expert_gate.weight"] = (1, c.hidden)
    return tensors
