"""mbridge-qwen2_5: Qwen2.5-VL with a Megatron-core vision tower.

Written by mbridge, verl and Pai-Megatron-Patch.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..models import model_of
from ..models.shared.config import ModelConfig
from ..tensors.rules import Copy, Rule, rename
from .layout import Layout, Spellings
from .shared import language, towers


def rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
    """The whole table."""
    yield from vision(config)
    yield from language.language(config, vocab_rows)


def vision(config: ModelConfig) -> Iterator[Copy]:
    """Patch embedding without bias, blocks, the norm after the last of them and the merger."""
    v, h = config.tower, model_of(config).vision_prefix
    yield from rename("vision_model.patch_embed.proj.weight", f"{h}patch_embed.proj.weight", v.patch_shape)
    yield from towers.gated_blocks(config)
    yield from rename("vision_model.decoder.final_layernorm.weight", f"{h}merger.ln_q.weight", (v.hidden,))
    yield from towers.linear("vision_model.projection.encoder.linear_fc1.", f"{h}merger.mlp.0.", v.merged, v.merged)
    yield from towers.linear("vision_model.projection.encoder.linear_fc2.", f"{h}merger.mlp.2.", v.out_hidden, v.merged)


def spellings(config: ModelConfig) -> Spellings:
    """Local-spec norms, in the decoder and in the vision blocks."""
    yield from language.spellings(config)
    yield from towers.spellings(config)


def extra_state(config: ModelConfig) -> Iterator[str]:
    """Every module with Transformer Engine underneath."""
    yield from language.extra_state(config)
    yield from towers.extra_state(config)
    yield "vision_model.decoder.final_layernorm"
    yield "vision_model.projection.encoder.linear_fc1"
    yield "vision_model.projection.encoder.linear_fc2"


MBRIDGE_QWEN2_5 = Layout(
    name="mbridge-qwen2_5",
    trainers="mbridge, verl, Pai-Megatron-Patch",
    serves=lambda traits: traits.windows,
    tower="vision_model.",
    has=("vision_model.projection.encoder.linear_fc1.weight", "language_model."),
    lacks=("deepstack", "linear_qkv.layer_norm_bias"),
    rules=rules,
    spellings=spellings,
    extra_state=extra_state,
    stacks=lambda config: ("layers",),
    writes=("torch_dist", "torch"),
    adapters=("megatron-bridge",),
)
