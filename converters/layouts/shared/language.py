"""The language decoder, the same in every layout but for its prefix.

Transformer-Engine names are the table's; a local-spec model spells some norms otherwise (`spellings`).
Per query group, linear_qkv holds [q x heads/groups | k | v], head_dim rows each; linear_fc1 is [gate; up]; an expert is
its Hugging Face counterpart
transposed.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...models import model_of
from ...models.shared.config import ModelConfig, TextConfig
from ...tensors.rules import Copy, Rows, Rule, concat, interleave, pad_rows, rename, transposed
from ...tensors.spec import Shape
from ..layout import Spellings

INSIDE = ("self_attention.linear_qkv.layer_norm_", "mlp.linear_fc1.layer_norm_")
"""Norms as Transformer Engine has them, inside the linear layer that follows."""

BESIDE = ("input_layernorm.", "pre_mlp_layernorm.")
"""Norms as modules of their own."""


def language(
    config: ModelConfig, vocab_rows: int, m: str = "language_model.", norms: tuple[str, str] = INSIDE
) -> Iterator[Rule]:
    """The whole language model.

    Args:
        config: the model.
        vocab_rows: rows of embedding and output layer on the mcore side, padding included.
        m: what stands before `embedding.`, `decoder.` and `output_layer.` on the mcore side.
        norms: INSIDE or BESIDE.
    """
    c, h = config.text, model_of(config).text_prefix
    yield from pad_rows(
        f"{m}embedding.word_embeddings.weight", f"{h}embed_tokens.weight", c.vocab, vocab_rows, (c.hidden,)
    )
    for i in range(c.layers):
        yield from attention(config, f"{m}decoder.layers.{i}", f"{h}layers.{i}", norms[0])
        if c.is_moe(i):
            yield from experts(c, f"{m}decoder.layers.{i}", f"{h}layers.{i}")
        else:
            yield from mlp(c, f"{m}decoder.layers.{i}", f"{h}layers.{i}", norms[1])
    yield from rename(f"{m}decoder.final_layernorm.weight", f"{h}norm.weight", (c.hidden,))
    if not c.tied:
        yield from pad_rows(f"{m}output_layer.weight", "lm_head.weight", c.vocab, vocab_rows, (c.hidden,))


def attention(config: ModelConfig, m: str, h: str, norm: str) -> Iterator[Copy]:
    """Self attention with the norm before it."""
    c, traits = config.text, model_of(config).traits
    yield from rename(f"{m}.{norm}weight", f"{h}.input_layernorm.weight", (c.hidden,))
    yield from qkv(c, f"{m}.self_attention.linear_qkv", f"{h}.self_attn", "weight", (c.hidden,))
    if traits.qkv_bias:
        yield from qkv(c, f"{m}.self_attention.linear_qkv", f"{h}.self_attn", "bias", ())
    if traits.qk_norm:
        yield from rename(f"{m}.self_attention.q_layernorm.weight", f"{h}.self_attn.q_norm.weight", (c.head_dim,))
        yield from rename(f"{m}.self_attention.k_layernorm.weight", f"{h}.self_attn.k_norm.weight", (c.head_dim,))
    yield from rename(
        f"{m}.self_attention.linear_proj.weight", f"{h}.self_attn.o_proj.weight", (c.hidden, c.heads * c.head_dim)
    )


def qkv(c: TextConfig, m: str, h: str, kind: str, tail: Shape) -> Iterator[Copy]:
    """linear_qkv: per query group [q x heads/groups | k | v]."""
    yield from interleave(f"{m}.{kind}", groups=c.groups, tail=tail, parts=[
        Rows(f"{h}.q_proj.{kind}", per_group=c.heads // c.groups * c.head_dim),
        Rows(f"{h}.k_proj.{kind}", per_group=c.head_dim),
        Rows(f"{h}.v_proj.{kind}", per_group=c.head_dim),
    ])  # fmt: skip


def mlp(c: TextConfig, m: str, h: str, norm: str) -> Iterator[Copy]:
    """A dense gated MLP with the norm before it."""
    yield from rename(f"{m}.{norm}weight", f"{h}.post_attention_layernorm.weight", (c.hidden,))
    yield from concat(
        f"{m}.mlp.linear_fc1.weight",
        (c.hidden,),
        [(f"{h}.mlp.gate_proj.weight", c.ffn), (f"{h}.mlp.up_proj.weight", c.ffn)],
    )
    yield from rename(f"{m}.mlp.linear_fc2.weight", f"{h}.mlp.down_proj.weight", (c.hidden, c.ffn))


def experts(c: TextConfig, m: str, h: str) -> Iterator[Copy]:
    """A router and its experts with the norm before them."""
    yield from rename(f"{m}.pre_mlp_layernorm.weight", f"{h}.post_attention_layernorm.weight", (c.hidden,))
    yield from rename(f"{m}.mlp.router.weight", f"{h}.mlp.gate.weight", (c.experts, c.hidden))
    # mcore [E, 2M, H], gate rows first <-> HF [E, H, 2M], gate columns first
    yield from transposed(
        f"{m}.mlp.experts.experts.linear_fc1.weight",
        f"{h}.mlp.experts.gate_up_proj",
        (c.experts, 2 * c.moe_ffn, c.hidden),
    )
    yield from transposed(
        f"{m}.mlp.experts.experts.linear_fc2.weight", f"{h}.mlp.experts.down_proj", (c.experts, c.hidden, c.moe_ffn)
    )


def spellings(config: ModelConfig, m: str = "language_model.") -> Spellings:
    """Norms of a local-spec model, which stand beside the linear layers instead of inside them.

    Torch_dist of a MoE one names its norm as if inside.
    """
    for i in range(config.text.layers):
        layer = f"{m}decoder.layers.{i}"
        yield f"{layer}.input_layernorm.weight", f"{layer}.self_attention.linear_qkv.layer_norm_weight"
        beside, inside = f"{layer}.pre_mlp_layernorm.weight", f"{layer}.mlp.linear_fc1.layer_norm_weight"
        yield (inside, beside) if config.text.is_moe(i) else (beside, inside)


def extra_state(config: ModelConfig, m: str = "language_model.") -> Iterator[str]:
    """Modules of a Transformer-Engine decoder that carry `_extra_state`."""
    normed = model_of(config).traits.qk_norm
    qk_norms = ("self_attention.q_layernorm", "self_attention.k_layernorm") if normed else ()
    for i in range(config.text.layers):
        moe = config.text.is_moe(i)
        fcs = (
            ("pre_mlp_layernorm", "mlp.experts.experts.linear_fc1", "mlp.experts.experts.linear_fc2")
            if moe
            else ("mlp.linear_fc1", "mlp.linear_fc2")
        )
        for module in ("self_attention.linear_qkv", "self_attention.linear_proj", *qk_norms, *fcs):
            yield f"{m}decoder.layers.{i}.{module}"
    yield f"{m}decoder.final_layernorm"
