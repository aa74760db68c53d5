"""Gated DeltaNet layers and gated attention, in the row orders that trainers keep them in.

Letters: K, V rows of all keys (and of all queries) and of all values; nk, nv key and value heads; r query heads to a
group. Every form says where the norm before the layer stands. The two orders of gated attention have the same names and
shapes: which of them a checkpoint has is decided for all of it at once, by its layout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from ...models import model_of
from ...models.shared.config import ModelConfig, TextConfig
from ...models.shared.language import LINEAR_ATTENTION, gated_delta_net
from ...tensors.rules import Copy, Rows, concat, flipped, interleave, rename


class Forms(NamedTuple):
    """How a trainer keeps what only hybrid models have.

    Attributes:
        linear: (config, name of the layer in Megatron, in Hugging Face) -> a Gated DeltaNet with the norm before it.
        gated_qkv: (integers, linear_qkv.weight, name of Hugging Face's attention) -> queries with their gates, keys,
            values.
        norm: what the norm before a Gated DeltaNet is called, without `weight`.
        modules: those of a layer with a Gated DeltaNet that carry an `_extra_state`, but for what follows it.
        less_one: (config, prefix of the language model) -> the tensors that hold the Hugging Face value minus one.
    """

    linear: Callable[[ModelConfig, str, str], Iterator[Copy]]
    gated_qkv: Callable[[TextConfig, str, str], Iterator[Copy]]
    norm: str
    modules: tuple[str, ...] = ()
    less_one: Callable[[ModelConfig, str], Iterator[str]] = lambda config, m: iter(())


def qkv_gates_apart(c: TextConfig, m: str, h: str) -> Iterator[Copy]:
    """Megatron-core's order, per query group: [q x r | gate x r | k | v], a head's rows each.

    Hugging Face's q_proj is [q | gate] x r.
    """
    r, head = c.heads // c.groups, c.head_dim
    step = 2 * r * head
    yield from interleave(m, groups=c.groups, tail=(c.hidden,), parts=[
        *(Rows(f"{h}.q_proj.weight", head, start=2 * j * head, step=step) for j in range(r)),
        *(Rows(f"{h}.q_proj.weight", head, start=(2 * j + 1) * head, step=step) for j in range(r)),
        Rows(f"{h}.k_proj.weight", head),
        Rows(f"{h}.v_proj.weight", head),
    ])  # fmt: skip


def qkv_gates_beside(c: TextConfig, m: str, h: str) -> Iterator[Copy]:
    """ms-swift's order, per query group: [(q | gate) x r | k | v]: that of Hugging Face's q_proj is kept."""
    yield from interleave(m, groups=c.groups, tail=(c.hidden,), parts=[
        Rows(f"{h}.q_proj.weight", 2 * (c.heads // c.groups) * c.head_dim),
        Rows(f"{h}.k_proj.weight", c.head_dim),
        Rows(f"{h}.v_proj.weight", c.head_dim),
    ])  # fmt: skip


def core(config: ModelConfig, m: str, h: str) -> Iterator[Copy]:
    """Megatron-core's own module: in_proj is [query | key | value | z | beta | alpha], flat over all heads.

    Its output norm holds the Hugging Face weight minus one.
    """
    c, at = config.text, f"{m}.self_attention"
    yield from rename(f"{at}.in_proj.layer_norm_weight", f"{h}.input_layernorm.weight", (c.hidden,))
    if model_of(config).traits.fused_linear_projections:
        yield from _flat_of_fused(c, f"{at}.in_proj.weight", f"{h}.linear_attn")
    else:
        yield from concat(f"{at}.in_proj.weight", (c.hidden,), [
            (f"{h}.linear_attn.in_proj_qkv.weight", 2 * c.key_width + c.value_width),
            (f"{h}.linear_attn.in_proj_z.weight", c.value_width),
            (f"{h}.linear_attn.in_proj_b.weight", c.value_heads),
            (f"{h}.linear_attn.in_proj_a.weight", c.value_heads),
        ])  # fmt: skip
    yield from rename(f"{at}.conv1d.weight", f"{h}.linear_attn.conv1d.weight", _kernel(c))
    yield from _rest(c, at, f"{h}.linear_attn")


def _flat_of_fused(c: TextConfig, m: str, h: str) -> Iterator[Copy]:
    """Qwen3-Next's projections hold, key head after key head, [q | k | v | z] and [b | a]; Megatron's is flat."""
    values, heads = c.value_width // c.key_heads, c.value_heads // c.key_heads
    z = 2 * c.key_width + c.value_width
    yield from flipped(interleave(f"{h}.in_proj_qkvz.weight", groups=c.key_heads, tail=(c.hidden,), parts=[
        Rows(m, c.key_dim),
        Rows(m, c.key_dim, start=c.key_width),
        Rows(m, values, start=2 * c.key_width),
        Rows(m, values, start=z),
    ]))  # fmt: skip
    yield from flipped(interleave(f"{h}.in_proj_ba.weight", groups=c.key_heads, tail=(c.hidden,), parts=[
        Rows(m, heads, start=z + c.value_width),
        Rows(m, heads, start=z + c.value_width + c.value_heads),
    ]))  # fmt: skip


def grouped(config: ModelConfig, m: str, h: str) -> Iterator[Copy]:
    """ms-swift's own module: in_proj holds, key head after key head, [q | k | v | z | b | a]; conv1d [q | k | v]."""
    c, at = config.text, f"{m}.self_attention"
    yield from rename(f"{at}.in_proj.layer_norm_weight", f"{h}.input_layernorm.weight", (c.hidden,))
    yield from interleave(f"{at}.in_proj.weight", groups=c.key_heads, tail=(c.hidden,), parts=[
        *_grouped_qkv(c, f"{h}.linear_attn.in_proj_qkv.weight"),
        Rows(f"{h}.linear_attn.in_proj_z.weight", c.value_width // c.key_heads),
        Rows(f"{h}.linear_attn.in_proj_b.weight", c.value_heads // c.key_heads),
        Rows(f"{h}.linear_attn.in_proj_a.weight", c.value_heads // c.key_heads),
    ])  # fmt: skip
    yield from _grouped_conv(c, at, h)
    yield from _rest(c, at, f"{h}.linear_attn")


def decoupled(config: ModelConfig, m: str, h: str) -> Iterator[Copy]:
    """The same with linear_decoupled_in_proj: [q | k | v | z] and [b | a] apart, the norm a module of its own."""
    c, at = config.text, f"{m}.self_attention"
    yield from rename(f"{m}.input_layernorm.weight", f"{h}.input_layernorm.weight", (c.hidden,))
    yield from interleave(f"{at}.in_proj_qkvz.weight", groups=c.key_heads, tail=(c.hidden,), parts=[
        *_grouped_qkv(c, f"{h}.linear_attn.in_proj_qkv.weight"),
        Rows(f"{h}.linear_attn.in_proj_z.weight", c.value_width // c.key_heads),
    ])  # fmt: skip
    yield from interleave(f"{at}.in_proj_ba.weight", groups=c.key_heads, tail=(c.hidden,), parts=[
        Rows(f"{h}.linear_attn.in_proj_b.weight", c.value_heads // c.key_heads),
        Rows(f"{h}.linear_attn.in_proj_a.weight", c.value_heads // c.key_heads),
    ])  # fmt: skip
    yield from _grouped_conv(c, at, h)
    yield from _rest(c, at, f"{h}.linear_attn")


def _grouped_qkv(c: TextConfig, h: str) -> list[Rows]:
    return [
        Rows(h, c.key_dim),
        Rows(h, c.key_dim, start=c.key_width),
        Rows(h, c.value_width // c.key_heads, start=2 * c.key_width),
    ]


def _grouped_conv(c: TextConfig, at: str, h: str) -> Iterator[Copy]:
    parts = _grouped_qkv(c, f"{h}.linear_attn.conv1d.weight")
    yield from interleave(f"{at}.conv1d.weight", groups=c.key_heads, tail=(1, c.kernel), parts=parts)


def hf_module(below: str, norm: str) -> Callable[[ModelConfig, str, str], Iterator[Copy]]:
    """Hugging Face's own module inside a Megatron layer: every tensor as it is.

    Args:
        below: what stands between the layer's name and the module's tensors: "self_attention.linear_attn".
        norm: what the norm before it is called: "input_layernorm".
    """

    def linear(config: ModelConfig, m: str, h: str) -> Iterator[Copy]:
        c = config.text
        yield from rename(f"{m}.{norm}.weight", f"{h}.input_layernorm.weight", (c.hidden,))
        for name, shape in gated_delta_net(c, model_of(config).traits).items():
            yield from rename(f"{m}.{below}.{name.removeprefix(LINEAR_ATTENTION)}", f"{h}.{name}", shape)

    return linear


def _rest(c: TextConfig, m: str, h: str) -> Iterator[Copy]:
    """What is the same in every form that is Megatron's."""
    yield from rename(f"{m}.dt_bias", f"{h}.dt_bias", (c.value_heads,))
    yield from rename(f"{m}.A_log", f"{h}.A_log", (c.value_heads,))
    yield from rename(f"{m}.out_norm.weight", f"{h}.norm.weight", (c.value_dim,))
    yield from rename(f"{m}.out_proj.weight", f"{h}.out_proj.weight", (c.hidden, c.value_width))


def _kernel(c: TextConfig) -> tuple[int, int, int]:
    """Of the causal convolution over queries, keys and values, channel by channel."""
    return (2 * c.key_width + c.value_width, 1, c.kernel)


def less_one(config: ModelConfig, m: str = "language_model.") -> Iterator[str]:
    """The output norms of megatron-core's own module: they hold the Hugging Face weight minus one."""
    for i in sorted(config.text.linear_layers):
        yield f"{m}decoder.layers.{i}.self_attention.out_norm.weight"


CORE = Forms(
    core,
    qkv_gates_apart,
    "self_attention.in_proj.layer_norm_",
    modules=("self_attention.in_proj", "self_attention.out_norm", "self_attention.out_proj"),
    less_one=less_one,
)
"""Megatron-core's: mbridge, Megatron-Bridge, ROLL, Megatron-LM."""

SWIFT = Forms(
    grouped,
    qkv_gates_beside,
    "self_attention.in_proj.layer_norm_",
    modules=("self_attention.in_proj", "self_attention.out_norm", "self_attention.out_proj"),
)
SWIFT_DECOUPLED = Forms(
    decoupled,
    qkv_gates_beside,
    "input_layernorm.",
    modules=(
        "input_layernorm",
        "self_attention.in_proj_qkvz",
        "self_attention.in_proj_ba",
        "self_attention.out_norm",
        "self_attention.out_proj",
    ),
)
SWIFT_HF = Forms(hf_module("self_attention", "input_layernorm"), qkv_gates_beside, "input_layernorm.")
"""ms-swift's three: its own module, the same decoupled, and Hugging Face's."""

SLIME = Forms(
    hf_module("self_attention.linear_attn", "self_attention.input_layernorm"),
    qkv_gates_apart,
    "self_attention.input_layernorm.",
)
