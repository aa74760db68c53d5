"""Vision towers: Megatron's own blocks, shared by several layouts, and the Hugging Face tower inside a Megatron model.

Per head, the mcore side of a vision linear_qkv holds [q | k | v]; Hugging Face holds [q of all heads | k of all | v of
all] in one tensor.
"""

from __future__ import annotations

from collections.abc import Iterator

from ...models import model_of
from ...models.shared.config import ModelConfig, VisionConfig
from ...tensors.rules import Copy, Rows, concat, interleave, rename
from ...tensors.spec import Shape
from ..layout import Spellings
from .decoder_layer import INSIDE


def norm(m: str, h: str, width: int) -> Iterator[Copy]:
    """A LayerNorm: weight and bias of `width`. Names end before `weight` and `bias`, here and below."""
    yield from rename(f"{m}weight", f"{h}weight", (width,))
    yield from rename(f"{m}bias", f"{h}bias", (width,))


def linear(m: str, h: str, rows: int, columns: int) -> Iterator[Copy]:
    """A Linear with bias: [rows, columns] and [rows]."""
    yield from rename(f"{m}weight", f"{h}weight", (rows, columns))
    yield from rename(f"{m}bias", f"{h}bias", (rows,))


def conv(m: str, h: str, kernel: Shape) -> Iterator[Copy]:
    """A convolution with bias: a weight of shape `kernel`, output channels first."""
    yield from rename(f"{m}weight", f"{h}weight", kernel)
    yield from rename(f"{m}bias", f"{h}bias", kernel[:1])


def qkv(v: VisionConfig, m: str, h: str) -> Iterator[Copy]:
    """linear_qkv, weight and bias: per head [q | k | v]."""
    head = v.hidden // v.heads
    for kind, tail in (("weight", (v.hidden,)), ("bias", ())):
        yield from interleave(f"{m}.self_attention.linear_qkv.{kind}", groups=v.heads, tail=tail, parts=[
            Rows(f"{h}.attn.qkv.{kind}", per_group=head),
            Rows(f"{h}.attn.qkv.{kind}", per_group=head, start=v.hidden),
            Rows(f"{h}.attn.qkv.{kind}", per_group=head, start=2 * v.hidden),
        ])  # fmt: skip


def deepstack_front(config: ModelConfig) -> Iterator[Copy]:
    """What mbridge and pai share of a tower with deepstack: patch embedding, positions, blocks."""
    v, h = config.tower, model_of(config).vision_prefix
    yield from conv("vision_model.patch_embed.proj.", f"{h}patch_embed.proj.", v.patch_shape)
    yield from rename("vision_model.pos_embed.weight", f"{h}pos_embed.weight", (v.positions, v.hidden))
    yield from layer_norm_blocks(config)


def layer_norm_blocks(
    config: ModelConfig, m: str = "vision_model.decoder.layers", norms: tuple[str, str] = INSIDE
) -> Iterator[Copy]:
    """Vision blocks of Qwen3-VL: LayerNorm with bias, MLP not gated."""
    v, h = config.tower, f"{model_of(config).vision_prefix}blocks"
    for i in range(v.depth):
        yield from norm(f"{m}.{i}.{norms[0]}", f"{h}.{i}.norm1.", v.hidden)
        yield from qkv(v, f"{m}.{i}", f"{h}.{i}")
        yield from linear(f"{m}.{i}.self_attention.linear_proj.", f"{h}.{i}.attn.proj.", v.hidden, v.hidden)
        yield from norm(f"{m}.{i}.{norms[1]}", f"{h}.{i}.norm2.", v.hidden)
        yield from linear(f"{m}.{i}.mlp.linear_fc1.", f"{h}.{i}.mlp.linear_fc1.", v.ffn, v.hidden)
        yield from linear(f"{m}.{i}.mlp.linear_fc2.", f"{h}.{i}.mlp.linear_fc2.", v.hidden, v.ffn)


def gated_blocks(
    config: ModelConfig, m: str = "vision_model.decoder.layers", norms: tuple[str, str] = INSIDE
) -> Iterator[Copy]:
    """Vision blocks of Qwen2.5-VL: RMSNorm, gated MLP with bias."""
    v, h = config.tower, f"{model_of(config).vision_prefix}blocks"
    for i in range(v.depth):
        yield from rename(f"{m}.{i}.{norms[0]}weight", f"{h}.{i}.norm1.weight", (v.hidden,))
        yield from qkv(v, f"{m}.{i}", f"{h}.{i}")
        yield from linear(f"{m}.{i}.self_attention.linear_proj.", f"{h}.{i}.attn.proj.", v.hidden, v.hidden)
        yield from rename(f"{m}.{i}.{norms[1]}weight", f"{h}.{i}.norm2.weight", (v.hidden,))
        for kind, tail in (("weight", (v.hidden,)), ("bias", ())):
            parts = [(f"{h}.{i}.mlp.gate_proj.{kind}", v.ffn), (f"{h}.{i}.mlp.up_proj.{kind}", v.ffn)]
            yield from concat(f"{m}.{i}.mlp.linear_fc1.{kind}", tail, parts)
        yield from linear(f"{m}.{i}.mlp.linear_fc2.", f"{h}.{i}.mlp.down_proj.", v.hidden, v.ffn)


def spellings(config: ModelConfig, m: str = "vision_model.decoder.layers") -> Spellings:
    """Norms of a local-spec vision tower, which stand beside the linear layers instead of inside them."""
    for i in range(config.tower.depth):
        for kind in ("weight", "bias"):
            yield f"{m}.{i}.input_layernorm.{kind}", f"{m}.{i}.self_attention.linear_qkv.layer_norm_{kind}"
            yield f"{m}.{i}.pre_mlp_layernorm.{kind}", f"{m}.{i}.mlp.linear_fc1.layer_norm_{kind}"


def extra_state(config: ModelConfig, m: str = "vision_model.decoder.layers") -> Iterator[str]:
    """Modules of Transformer-Engine vision blocks that carry `_extra_state`."""
    for i in range(config.tower.depth):
        for module in ("self_attention.linear_qkv", "self_attention.linear_proj", "mlp.linear_fc1", "mlp.linear_fc2"):
            yield f"{m}.{i}.{module}"


def hf_tower(config: ModelConfig, m: str) -> Iterator[Copy]:
    """The Hugging Face vision tower inside a Megatron model: every tensor as it is, behind another prefix.

    Never sharded, never stacked.
    """
    model = model_of(config)
    for name, shape in model.vision_tensors(config).items():
        yield from rename(f"{m}{name}", f"{model.vision_prefix}{name}", shape)
