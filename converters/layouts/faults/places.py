"""Where fused tensors are in a model: attention, MLPs, experts all pass, Gated DeltaNets, the vision tower."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ...models import model_of
from ...models.shared.config import ModelConfig, TextConfig
from ...models.shared.model import MTP
from ...tensors.rules import Copy, Rows, flipped, interleave
from ...tensors.spec import Box
from ..shared.linear_attention import qkv_gates_apart
from .fused import F, Fused, M, Part, swapped

Places = Callable[[ModelConfig], Iterator[Fused]]


def attention(config: ModelConfig) -> Iterator[Fused]:
    """linear_qkv, its weight and its bias."""
    c, traits = config.text, model_of(config).traits
    for layer in _layers(config, linear=False):
        for kind, tail in (("weight", (c.hidden,)), ("bias", ())):
            if kind == "weight" or traits.qkv_bias:
                yield _qkv(c, f"{layer}.self_attn", kind, tail, gated=traits.gated_attention)


def _qkv(c: TextConfig, h: str, kind: str, tail: tuple[int, ...], *, gated: bool) -> Fused:
    rows = {"q": (1 + gated) * c.heads * c.head_dim, "k": c.groups * c.head_dim, "v": c.groups * c.head_dim}
    parts = tuple(Part(f"{h}.{name}_proj.{kind}", n) for name, n in rows.items())
    own: tuple[tuple[str, tuple[Copy, ...]], ...] = ()
    if gated:
        starts = {"hf.q_proj.weight": 0, "hf.k_proj.weight": rows["q"], "hf.v_proj.weight": rows["q"] + rows["k"]}
        apart = (Copy(copy.left, _flat(copy.right, starts)) for copy in qkv_gates_apart(c, M, "hf"))
        own = (("core", tuple(apart)),)
    return Fused(parts, tail, c.groups, own)


def _flat(box: Box, starts: Mapping[str, int]) -> Box:
    """A box of one part, in F."""
    return Box(F, (box.offsets[0] + starts[box.name], *box.offsets[1:]), box.lengths)


def mlp(config: ModelConfig) -> Iterator[Fused]:
    """linear_fc1 of dense layers, and of the expert that all tokens pass."""
    c = config.text
    for number, layer in enumerate(_layers(config)):
        moe = c.is_moe(number) if number < c.layers else bool(c.experts)
        if not moe:
            yield _gate_up(f"{layer}.mlp", c.ffn, (c.hidden,))
        elif c.shared_ffn:
            yield _gate_up(f"{layer}.mlp.shared_expert", c.shared_ffn, (c.hidden,))


def _gate_up(h: str, rows: int, tail: tuple[int, ...], kind: str = "weight") -> Fused:
    parts = (Part(f"{h}.gate_proj.{kind}", rows), Part(f"{h}.up_proj.{kind}", rows))
    return Fused(parts, tail, orders=(("swapped", swapped(parts, tail)),))


def vision_qkv(config: ModelConfig) -> Iterator[Fused]:
    """The tower's linear_qkv, which Hugging Face holds as one tensor, too."""
    v = config.vision
    if v is None:
        return
    for block in _blocks(config):
        for kind, tail in (("weight", (v.hidden,)), ("bias", ())):
            parts = tuple(Part(f"{block}.attn.qkv.{kind}", v.hidden, i * v.hidden) for i in range(3))
            yield Fused(parts, tail, v.heads)


def vision_mlp(config: ModelConfig) -> Iterator[Fused]:
    """The tower's gated linear_fc1."""
    v = config.vision
    if v is None or not model_of(config).traits.gated_vision_mlp:
        return
    for block in _blocks(config):
        for kind, tail in (("weight", (v.hidden,)), ("bias", ())):
            yield _gate_up(f"{block}.mlp", v.ffn, tail, kind)


def delta_net(config: ModelConfig) -> Iterator[Fused]:
    """in_proj of a Gated DeltaNet: [query; key; value; z; beta; alpha]."""
    c = config.text
    for layer in _layers(config, linear=True):
        h = f"{layer}.linear_attn"
        if model_of(config).traits.fused_linear_projections:
            yield _qkvz(c, h)
            continue
        qkv = f"{h}.in_proj_qkv.weight"
        yield Fused(
            (
                Part(qkv, c.key_width),
                Part(qkv, c.key_width, c.key_width),
                Part(qkv, c.value_width, 2 * c.key_width),
                Part(f"{h}.in_proj_z.weight", c.value_width),
                Part(f"{h}.in_proj_b.weight", c.value_heads),
                Part(f"{h}.in_proj_a.weight", c.value_heads),
            ),
            (c.hidden,),
            c.key_heads,
        )


def _qkvz(c: TextConfig, h: str) -> Fused:
    """Hugging Face's own tensor holds [q | k | v | z] key head after key head."""
    name, values = f"{h}.in_proj_qkvz.weight", c.value_width // c.key_heads
    rows = (c.key_width, c.key_width, c.value_width, c.value_width)
    parts = tuple(Part(name, n) for n in rows)
    home = flipped(interleave(name, groups=c.key_heads, tail=(c.hidden,), parts=[
        Rows(F, c.key_dim),
        Rows(F, c.key_dim, start=c.key_width),
        Rows(F, values, start=2 * c.key_width),
        Rows(F, values, start=2 * c.key_width + c.value_width),
    ]))  # fmt: skip
    return Fused(parts, (c.hidden,), c.key_heads, home=tuple(home))


def delta_net_qkv(config: ModelConfig) -> Iterator[Fused]:
    """Queries, keys and values of a Gated DeltaNet alone, which Hugging Face holds as one tensor."""
    c = config.text
    for layer in () if model_of(config).traits.fused_linear_projections else _layers(config, linear=True):
        yield _gdn_qkv(c, f"{layer}.linear_attn.in_proj_qkv.weight", (c.hidden,))


def _gdn_qkv(c: TextConfig, name: str, tail: tuple[int, ...]) -> Fused:
    starts = (0, c.key_width, 2 * c.key_width)
    rows = (c.key_width, c.key_width, c.value_width)
    return Fused(tuple(Part(name, n, start) for n, start in zip(rows, starts, strict=True)), tail, c.key_heads)


def convolution(config: ModelConfig) -> Iterator[Fused]:
    """conv1d of a Gated DeltaNet, channel by channel: [query; key; value]."""
    c = config.text
    for layer in _layers(config, linear=True):
        yield _gdn_qkv(c, f"{layer}.linear_attn.conv1d.weight", (1, c.kernel))


def _layers(config: ModelConfig, *, linear: bool | None = None) -> Iterator[str]:
    """The layers of the decoder and, last, of the multi-token-prediction head, which has full attention."""
    c = config.text
    for i in range(c.layers):
        if linear is None or c.is_linear(i) == linear:
            yield f"{model_of(config).text_prefix}layers.{i}"
    if c.mtp and not linear:
        yield f"{MTP}layers.0"


def _blocks(config: ModelConfig) -> Iterator[str]:
    depth = config.vision.depth if config.vision else 0
    yield from (f"{model_of(config).vision_prefix}blocks.{i}" for i in range(depth))
