"""mindspeed-mm: MindSpeed-MM's image_encoder and text_decoder.

A second form for Qwen2.5-VL, mindspeed-mm-canonical, keeps q, k, v and gate, up apart in the decoder and the vision QKV in Hugging Face's order.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..models import MODELS
from ..models.config import ModelConfig
from ..rules import Copy, Rule, rename
from . import language, towers
from .language import BESIDE
from .layout import Layout

_ENCODER = "image_encoder.encoder"
_BLOCKS = "image_encoder.encoder.blocks.layers"


def rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
    """The whole table."""
    yield from (_vision_2_5(config) if config.model_type == "qwen2_5_vl" else _vision_3(config))
    yield from language.language(config, vocab_rows, "text_decoder.", BESIDE)


def _vision_3(config: ModelConfig) -> Iterator[Copy]:
    v, h = config.vision, MODELS[config.model_type].vision_prefix
    yield from towers.both(f"{_ENCODER}.patch_embed.proj.", f"{h}patch_embed.proj.", v.hidden, 0, weight=v.patch_shape)
    yield from rename(f"{_ENCODER}.pos_embed.weight", f"{h}pos_embed.weight", (v.positions, v.hidden))
    yield from towers.qwen3_blocks(config, _BLOCKS, BESIDE)
    yield from _projector(config, "image_encoder.projector", f"{h}merger", norm=v.hidden)
    for k, block in enumerate(v.deepstack):  # each deepstack merger lives in the block after which it looks
        yield from _projector(config, f"{_BLOCKS}.{block}.deepstack_layer", f"{h}deepstack_merger_list.{k}", norm=v.merged)


def _projector(config: ModelConfig, m: str, h: str, norm: int) -> Iterator[Copy]:
    v = config.vision
    yield from towers.both(f"{m}.layernorm.", f"{h}.norm.", norm, 0)
    yield from towers.both(f"{m}.encoder.linear_fc1.", f"{h}.linear_fc1.", v.merged, v.merged)
    yield from towers.both(f"{m}.encoder.linear_fc2.", f"{h}.linear_fc2.", v.out_hidden, v.merged)


def _vision_2_5(config: ModelConfig) -> Iterator[Copy]:
    v, h = config.vision, MODELS[config.model_type].vision_prefix
    yield from rename(f"{_ENCODER}.patch_embed.proj.weight", f"{h}patch_embed.proj.weight", v.patch_shape)
    yield from towers.qwen2_5_blocks(config, _BLOCKS, BESIDE)
    yield from _merger_2_5(config)


def _merger_2_5(config: ModelConfig) -> Iterator[Copy]:
    v, h = config.vision, MODELS[config.model_type].vision_prefix
    yield from rename("image_encoder.projector.layernorm.weight", f"{h}merger.ln_q.weight", (v.hidden,))
    yield from towers.both("image_encoder.projector.encoder.linear_fc1.", f"{h}merger.mlp.0.", v.merged, v.merged)
    yield from towers.both("image_encoder.projector.encoder.linear_fc2.", f"{h}merger.mlp.2.", v.out_hidden, v.merged)


MINDSPEED_MM = Layout(
    name="mindspeed-mm",
    trainers="MindSpeed-MM",
    models=("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl"),
    has=("image_encoder.", "text_decoder."),
    lacks=("self_attention.q_proj.",),
    rules=rules,
    spellings=lambda config: iter(()),
    extra_state=lambda config: iter(()),
    stacks=lambda config: (),
    writes=False,
)
