"""The language decoder on the Hugging Face side, common to all models, without its prefix."""

from __future__ import annotations

from ...errors import CorruptError
from .config import TextConfig
from .fields import MOST_EXPERTS, MOST_LAYERS, Fields
from .model import Shapes
from .traits import Traits


def text_config(text: Fields, tied: bool, *, head_dim: int | None = None, moe: bool = False) -> TextConfig:
    """The integers of the language model.

    Args:
        text: the section that holds them.
        tied: whether input and output embeddings are one tensor.
        head_dim: the head dimension where the model has no field for it; else the field is required.
        moe: read the experts' fields too.
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
    experts = text.integer("num_experts", "num_local_experts", least=0, most=2**16) if moe else 0
    if layers * experts > MOST_EXPERTS:
        raise CorruptError(
            f"config.json: {text.place('num_hidden_layers')} {layers} times {text.place('num_experts')} {experts} is "
            "more than any model has"
        )
    dense = _dense_layers(text, layers) if experts else frozenset()
    needs_ffn = not experts or bool(dense) or text.has("intermediate_size")
    return TextConfig(
        layers=layers,
        hidden=text.integer("hidden_size"),
        heads=heads,
        groups=groups,
        head_dim=text.integer("head_dim") if head_dim is None else head_dim,
        ffn=text.integer("intermediate_size") if needs_ffn else 0,
        vocab=text.integer("vocab_size"),
        tied=tied,
        experts=experts,
        moe_ffn=text.integer("moe_intermediate_size") if experts else 0,
        dense_layers=dense,
    )


def _dense_layers(text: Fields, layers: int) -> frozenset[int]:
    """The layers of a MoE model that have one ordinary MLP: those listed, and those the sparse step leaves out."""
    step = text.integer("decoder_sparse_step")
    listed = text.integers("mlp_only_layers", most=layers)
    return frozenset(listed) | frozenset(i for i in range(layers) if (i + 1) % step)


def text_tensors(c: TextConfig, traits: Traits) -> Shapes:
    """Every tensor of the language decoder but the output layer, without prefix.

    Args:
        c: the language model's integers.
        traits: asked for qkv_bias and qk_norm.
    """
    tensors: Shapes = {"embed_tokens.weight": (c.vocab, c.hidden)}
    for layer in range(c.layers):
        block = _attention(c, traits) | (_experts(c) if c.is_moe(layer) else _mlp(c))
        tensors |= {f"layers.{layer}.{name}": shape for name, shape in block.items()}
    return tensors | {"norm.weight": (c.hidden,)}


def _attention(c: TextConfig, traits: Traits) -> Shapes:
    rows = {"q": c.heads * c.head_dim, "k": c.groups * c.head_dim, "v": c.groups * c.head_dim}
    tensors: Shapes = {"input_layernorm.weight": (c.hidden,), "post_attention_layernorm.weight": (c.hidden,)}
    for part, n in rows.items():
        tensors[f"self_attn.{part}_proj.weight"] = (n, c.hidden)
        if traits.qkv_bias:
            tensors[f"self_attn.{part}_proj.bias"] = (n,)
    if traits.qk_norm:
        tensors |= {"self_attn.q_norm.weight": (c.head_dim,), "self_attn.k_norm.weight": (c.head_dim,)}
    return tensors | {"self_attn.o_proj.weight": (c.hidden, c.heads * c.head_dim)}


def _mlp(c: TextConfig) -> Shapes:
    wide = (c.ffn, c.hidden)
    return {"mlp.gate_proj.weight": wide, "mlp.up_proj.weight": wide, "mlp.down_proj.weight": (c.hidden, c.ffn)}


def _experts(c: TextConfig) -> Shapes:
    """The Hub's form: experts first, and each matrix transposed against a Linear's weight.

    Gate before up on the last axis.
    """
    return {
        "mlp.gate.weight": (c.experts, c.hidden),
        "mlp.experts.gate_up_proj": (c.experts, c.hidden, 2 * c.moe_ffn),
        "mlp.experts.down_proj": (c.experts, c.moe_ffn, c.hidden),
    }
