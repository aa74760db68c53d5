"""mindspeed-mm: MindSpeed-MM's image_encoder and text_decoder.

A second form for Qwen2.5-VL, mindspeed-mm-canonical, keeps q, k, v and gate, up apart in the decoder and the vision QKV
in Hugging Face's order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..models import model_of
from ..models.shared.config import ModelConfig, VisionConfig
from ..tensors.rules import Copy, Rule, pad_rows, rename
from .layout import Layout
from .shared import language, towers
from .shared.decoder_layer import BESIDE

_ENCODER = "image_encoder.encoder"
_BLOCKS = "image_encoder.encoder.blocks.layers"


def rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
    """The whole table."""
    yield from (_windowed_tower(config) if model_of(config).traits.windows else _deepstack_tower(config))
    yield from language.language(config, vocab_rows, "text_decoder.", BESIDE)


def _deepstack_tower(config: ModelConfig) -> Iterator[Copy]:
    v, h = config.tower, model_of(config).vision_prefix
    yield from towers.conv(f"{_ENCODER}.patch_embed.proj.", f"{h}patch_embed.proj.", v.patch_shape)
    yield from rename(f"{_ENCODER}.pos_embed.weight", f"{h}pos_embed.weight", (v.positions, v.hidden))
    yield from towers.layer_norm_blocks(config, _BLOCKS, BESIDE)
    yield from _projector(config, "image_encoder.projector", f"{h}merger", norm=v.hidden)
    for k, block in enumerate(v.deepstack):  # each deepstack merger lives in the block after which it looks
        yield from _projector(
            config, f"{_BLOCKS}.{block}.deepstack_layer", f"{h}deepstack_merger_list.{k}", norm=v.merged
        )


def _projector(config: ModelConfig, m: str, h: str, norm: int) -> Iterator[Copy]:
    v = config.tower
    yield from towers.norm(f"{m}.layernorm.", f"{h}.norm.", norm)
    yield from towers.linear(f"{m}.encoder.linear_fc1.", f"{h}.linear_fc1.", v.merged, v.merged)
    yield from towers.linear(f"{m}.encoder.linear_fc2.", f"{h}.linear_fc2.", v.out_hidden, v.merged)


def _windowed_tower(config: ModelConfig) -> Iterator[Copy]:
    v, h = config.tower, model_of(config).vision_prefix
    yield from rename(f"{_ENCODER}.patch_embed.proj.weight", f"{h}patch_embed.proj.weight", v.patch_shape)
    yield from towers.gated_blocks(config, _BLOCKS, BESIDE)
    yield from _windowed_merger(config)


def _windowed_merger(config: ModelConfig) -> Iterator[Copy]:
    v, h = config.tower, model_of(config).vision_prefix
    yield from rename("image_encoder.projector.layernorm.weight", f"{h}merger.ln_q.weight", (v.hidden,))
    yield from towers.linear("image_encoder.projector.encoder.linear_fc1.", f"{h}merger.mlp.0.", v.merged, v.merged)
    yield from towers.linear("image_encoder.projector.encoder.linear_fc2.", f"{h}merger.mlp.2.", v.out_hidden, v.merged)


MINDSPEED_MM = Layout(
    name="mindspeed-mm",
    trainers="MindSpeed-MM",
    serves=lambda traits: traits.deepstack or traits.windows,
    tower="image_encoder.",
    has=("image_encoder.", "text_decoder."),
    lacks=("self_attention.q_proj.",),
    rules=rules,
    spellings=lambda config: iter(()),
    extra_state=lambda config: iter(()),
    stacks=lambda config: (),
    own_tp=True,
    text="text_decoder.",
    sequential=True,
    writes=("torch",),
)


def canonical_rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
    """The form with q, k, v and gate, up apart, in the decoder and, but for the QKV, in the vision blocks."""
    c, v, model = config.text, config.tower, model_of(config)
    m, h = "text_decoder.", model.text_prefix
    yield from pad_rows(
        f"{m}embedding.word_embeddings.weight", f"{h}embed_tokens.weight", c.vocab, vocab_rows, (c.hidden,)
    )
    for i in range(c.layers):
        yield from _apart(config, f"{m}decoder.layers.{i}", f"{h}layers.{i}")
    yield from rename(f"{m}decoder.final_layernorm.weight", f"{h}norm.weight", (c.hidden,))
    if c.has_output_layer:
        yield from pad_rows(f"{m}output_layer.weight", "lm_head.weight", c.vocab, vocab_rows, (c.hidden,))
    yield from rename(
        f"{_ENCODER}.patch_embed.proj.weight", f"{model.vision_prefix}patch_embed.proj.weight", v.patch_shape
    )
    for i in range(v.depth):
        yield from _apart_vision(v, f"{_BLOCKS}.{i}", f"{model.vision_prefix}blocks.{i}")
    yield from _windowed_merger(config)


def _apart(config: ModelConfig, m: str, h: str) -> Iterator[Copy]:
    c = config.text
    yield from rename(f"{m}.input_layernorm.weight", f"{h}.input_layernorm.weight", (c.hidden,))
    for name, rows in (
        ("q_proj", c.heads * c.head_dim),
        ("k_proj", c.groups * c.head_dim),
        ("v_proj", c.groups * c.head_dim),
    ):
        yield from towers.linear(f"{m}.self_attention.{name}.", f"{h}.self_attn.{name}.", rows, c.hidden)
    yield from rename(
        f"{m}.self_attention.linear_proj.weight", f"{h}.self_attn.o_proj.weight", (c.hidden, c.heads * c.head_dim)
    )
    yield from rename(f"{m}.pre_mlp_layernorm.weight", f"{h}.post_attention_layernorm.weight", (c.hidden,))
    for name in ("gate_proj", "up_proj"):
        yield from rename(f"{m}.mlp.{name}.weight", f"{h}.mlp.{name}.weight", (c.ffn, c.hidden))
    yield from rename(f"{m}.mlp.linear_fc2.weight", f"{h}.mlp.down_proj.weight", (c.hidden, c.ffn))


def _apart_vision(v: VisionConfig, m: str, h: str) -> Iterator[Copy]:
    yield from rename(f"{m}.input_layernorm.weight", f"{h}.norm1.weight", (v.hidden,))
    yield from towers.linear(f"{m}.self_attention.linear_qkv.", f"{h}.attn.qkv.", 3 * v.hidden, v.hidden)
    yield from towers.linear(f"{m}.self_attention.linear_proj.", f"{h}.attn.proj.", v.hidden, v.hidden)
    yield from rename(f"{m}.pre_mlp_layernorm.weight", f"{h}.norm2.weight", (v.hidden,))
    for name in ("gate_proj", "up_proj"):
        yield from towers.linear(f"{m}.mlp.{name}.", f"{h}.mlp.{name}.", v.ffn, v.hidden)
    yield from towers.linear(f"{m}.mlp.linear_fc2.", f"{h}.mlp.down_proj.", v.hidden, v.ffn)


MINDSPEED_MM_CANONICAL = replace(
    MINDSPEED_MM,
    name="mindspeed-mm-canonical",
    trainers="MindSpeed-MM with enable_canonical_hf_struct",
    serves=lambda traits: traits.windows,
    has=("image_encoder.", "text_decoder.decoder.layers.0.self_attention.q_proj."),
    lacks=(),
    rules=canonical_rules,
    writes=(),
)
