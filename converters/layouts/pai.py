"""pai: Qwen3-VL, dense and MoE, as Pai-Megatron-Patch names it.

Mbridge's blocks, but norms and projections of the mergers in modules of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..models import model_of
from ..models.shared.config import ModelConfig
from ..tensors.rules import Copy, Rule
from . import mbridge
from .layout import Layout
from .shared import language, towers


def rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
    """The whole table."""
    yield from vision(config)
    yield from language.language(config, vocab_rows)


def vision(config: ModelConfig) -> Iterator[Copy]:
    """Patch embedding, blocks, the merger after the last block and those of deepstack."""
    v, h = config.tower, model_of(config).vision_prefix
    yield from towers.deepstack_front(config)
    m = "vision_model.decoder"
    yield from merger(config, f"{m}.final_layernorm", "vision_model.projection.encoder", f"{h}merger", norm=v.hidden)
    for k in range(len(v.deepstack)):
        yield from merger(
            config,
            f"{m}.deepstack_norm_list.{k}",
            f"{m}.deepstack_merger_list.{k}.encoder",
            f"{h}deepstack_merger_list.{k}",
            norm=v.merged,
        )


def merger(config: ModelConfig, norm_module: str, encoder: str, h: str, norm: int) -> Iterator[Copy]:
    """merge x merge patches become one token of the language model."""
    v = config.tower
    yield from towers.norm(f"{norm_module}.", f"{h}.norm.", norm)
    yield from towers.linear(f"{encoder}.linear_fc1.", f"{h}.linear_fc1.", v.merged, v.merged)
    yield from towers.linear(f"{encoder}.linear_fc2.", f"{h}.linear_fc2.", v.out_hidden, v.merged)


def extra_state(config: ModelConfig) -> Iterator[str]:
    """Every module with Transformer Engine underneath."""
    yield from language.extra_state(config)
    yield from towers.extra_state(config)
    yield "vision_model.decoder.final_layernorm"
    for module in ("projection", *(f"decoder.deepstack_merger_list.{k}" for k in range(len(config.tower.deepstack)))):
        yield f"vision_model.{module}.encoder.linear_fc1"
        yield f"vision_model.{module}.encoder.linear_fc2"
    for k in range(len(config.tower.deepstack)):
        yield f"vision_model.decoder.deepstack_norm_list.{k}"


PAI = Layout(
    name="pai",
    trainers="Pai-Megatron-Patch",
    serves=lambda traits: traits.deepstack,
    tower="vision_model.",
    has=("vision_model.decoder.deepstack_norm_list.", "language_model."),
    lacks=(),
    rules=rules,
    spellings=mbridge.spellings,
    extra_state=extra_state,
    stacks=lambda config: () if config.text.experts else ("layers",),  # its MoE script gives moe_layer_freq as a list
    writes=("torch_dist", "torch"),
)
