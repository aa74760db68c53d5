"""mbridge: Qwen3-VL and Qwen3.5, dense and MoE, with a Megatron-core vision tower.

Written by mbridge, Megatron-Bridge 0.4 and later, and AReaL and verl through either.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..models import model_of
from ..models.shared.config import ModelConfig
from ..tensors.rules import Copy, Rule
from .layout import Layout, Spellings
from .shared import language, towers
from .shared.linear_attention import less_one


def rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
    """The whole table."""
    yield from vision(config)
    yield from language.language(config, vocab_rows)


def vision(config: ModelConfig) -> Iterator[Copy]:
    """Patch embedding, blocks, the merger after the last block and those of deepstack."""
    v, h = config.tower, model_of(config).vision_prefix
    yield from towers.deepstack_front(config)
    yield from merger(
        config, "vision_model.merger", f"{h}merger", norm=v.hidden
    )  # normalised before patches are merged
    for k in range(len(v.deepstack)):  # normalised after
        yield from merger(
            config, f"vision_model.decoder.deepstack_merger_list.{k}", f"{h}deepstack_merger_list.{k}", norm=v.merged
        )


def merger(config: ModelConfig, m: str, h: str, norm: int) -> Iterator[Copy]:
    """merge x merge patches become one token of the language model."""
    v = config.tower
    yield from towers.norm(f"{m}.patch_norm.", f"{h}.norm.", norm)
    yield from towers.linear(f"{m}.linear_fc1.", f"{h}.linear_fc1.", v.merged, v.merged)
    yield from towers.linear(f"{m}.linear_fc2.", f"{h}.linear_fc2.", v.out_hidden, v.merged)


def spellings(config: ModelConfig) -> Spellings:
    """Local-spec norms, in the decoder and in the vision blocks."""
    yield from language.spellings(config)
    yield from towers.spellings(config)


def extra_state(config: ModelConfig) -> Iterator[str]:
    """Every module with Transformer Engine underneath; the patch embedding has none."""
    yield from language.extra_state(config)
    yield from towers.extra_state(config)
    for m in ("merger", *(f"decoder.deepstack_merger_list.{k}" for k in range(len(config.tower.deepstack)))):
        for module in ("patch_norm", "linear_fc1", "linear_fc2"):
            yield f"vision_model.{m}.{module}"


MBRIDGE = Layout(
    name="mbridge",
    trainers="mbridge, Megatron-Bridge >= 0.4, AReaL, verl",
    serves=lambda traits: traits.tower and traits.position_table,
    tower="vision_model.",
    has=("vision_model.merger.patch_norm.", "language_model."),
    lacks=(),
    rules=rules,
    spellings=spellings,
    extra_state=extra_state,
    stacks=lambda config: language.stacks(
        config, "vision_model.decoder.layers", "vision_model.decoder.deepstack_merger_list"
    ),
    writes=("torch_dist", "torch"),
    run_config=True,
    load=(
        ("Megatron-Bridge", "checkpoint.pretrained_checkpoint={0}"),
        ("verl", "actor_rollout_ref.actor.megatron.dist_checkpointing_path={0}/{1}"),
        ("AReaL, mbridge", "dist_checkpointing.load(…, {0}/{1})"),
    ),
    less_one=less_one,
    adapters=("megatron-bridge",),
)
