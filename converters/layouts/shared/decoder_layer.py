"""A decoder layer: attention, and an MLP or experts, each with the norm before it.

Transformer Engine's names are the table's. Per query group, linear_qkv holds [q x heads/groups | k | v], head_dim rows
each; linear_fc1 is [gate; up].
"""

from __future__ import annotations

from collections.abc import Iterator

from ...models import model_of
from ...models.shared.config import ModelConfig, TextConfig
from ...models.shared.experts import Experts, expert_copies, hf_experts
from ...models.shared.traits import ExpertsOnHub
from ...tensors.rules import Copy, Rows, concat, interleave, rename
from ...tensors.spec import Shape
from ..layout import Spellings
from .linear_attention import CORE, Forms

INSIDE = ("self_attention.linear_qkv.layer_norm_", "mlp.linear_fc1.layer_norm_")
"""Norms as Transformer Engine has them, inside the linear layer that follows."""

BESIDE = ("input_layernorm.", "pre_mlp_layernorm.")
"""Norms as modules of their own."""


def attention(config: ModelConfig, m: str, h: str, norm: str, forms: Forms = CORE) -> Iterator[Copy]:
    """Self attention with the norm before it."""
    c, traits = config.text, model_of(config).traits
    yield from rename(f"{m}.{norm}weight", f"{h}.input_layernorm.weight", (c.hidden,))
    if traits.gated_attention:
        yield from forms.gated_qkv(c, f"{m}.self_attention.linear_qkv.weight", f"{h}.self_attn")
    else:
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


def feed_forward(
    config: ModelConfig, m: str, h: str, norm: str, *, moe: bool, form: ExpertsOnHub | None = None
) -> Iterator[Copy]:
    """What follows attention, with the norm before it: one gated MLP, or experts (`form`: on the Hub, if special)."""
    c = config.text
    before = "pre_mlp_layernorm." if moe else norm
    yield from rename(f"{m}.{before}weight", f"{h}.post_attention_layernorm.weight", (c.hidden,))
    if moe:
        yield from experts(config, f"{m}.mlp", f"{h}.mlp", form or model_of(config).traits.experts_on_hub)
    else:
        yield from gated(f"{m}.mlp", f"{h}.mlp", c.ffn, c.hidden)


def gated(m: str, h: str, ffn: int, hidden: int) -> Iterator[Copy]:
    """A gated MLP: linear_fc1 is [gate; up]."""
    halves = [(f"{h}.gate_proj.weight", ffn), (f"{h}.up_proj.weight", ffn)]
    yield from concat(f"{m}.linear_fc1.weight", (hidden,), halves)
    yield from rename(f"{m}.linear_fc2.weight", f"{h}.down_proj.weight", (hidden, ffn))


def experts(config: ModelConfig, m: str, h: str, form: ExpertsOnHub) -> Iterator[Copy]:
    """A router and its experts, and the expert that all tokens pass."""
    c = config.text
    yield from rename(f"{m}.router.weight", f"{h}.gate.weight", (c.experts, c.hidden))
    ours = Experts("packed", f"{m}.experts.experts.linear_fc1.weight", f"{m}.experts.experts.linear_fc2.weight")
    yield from expert_copies(ours, hf_experts(f"{h}.experts", form), c)
    if c.shared_ffn:
        yield from gated(f"{m}.shared_experts", f"{h}.shared_expert", c.shared_ffn, c.hidden)
        yield from rename(f"{m}.shared_experts.gate_weight", f"{h}.shared_expert_gate.weight", (1, c.hidden))


def norm_spellings(layer: str, inside: str, *, moe: bool) -> Spellings:
    """The norms of a local-spec model, which stand beside the linear layers instead of inside them.

    Torch_dist of a MoE one names its norm as if inside. `inside`: what the norm before attention is called, but for its
    last word.
    """
    if inside != BESIDE[0]:
        yield f"{layer}.{BESIDE[0]}weight", f"{layer}.{inside}weight"
    beside, inner = f"{layer}.{BESIDE[1]}weight", f"{layer}.{INSIDE[1]}weight"
    yield (inner, beside) if moe else (beside, inner)


def attention_state(config: ModelConfig, layer: str) -> Iterator[str]:
    """Modules of attention that carry `_extra_state`."""
    qk_norms = ("q_layernorm", "k_layernorm") if model_of(config).traits.qk_norm else ()
    for module in ("linear_qkv", "linear_proj", *qk_norms):
        yield f"{layer}.self_attention.{module}"


def feed_forward_state(config: ModelConfig, layer: str, *, moe: bool) -> Iterator[str]:
    """Those of what follows attention."""
    modules = ("linear_fc1", "linear_fc2")
    if moe:
        yield f"{layer}.pre_mlp_layernorm"
        yield from (f"{layer}.mlp.experts.experts.{module}" for module in modules)
    if moe and config.text.shared_ffn:
        yield from (f"{layer}.mlp.shared_experts.{module}" for module in modules)
    if not moe:
        yield from (f"{layer}.mlp.{module}" for module in modules)
