"""The layouts that keep the Hugging Face vision tower inside a Megatron model.

Only its prefix differs, and where the language model stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..models.shared.config import ModelConfig
from ..models.shared.traits import Traits
from ..tensors.rules import Rule
from .layout import Layout
from .shared import language, towers
from .shared.decoder_layer import INSIDE
from .shared.linear_attention import CORE, Forms


def hf_tower_layout(
    name: str,
    trainers: str,
    serves: Callable[[Traits], bool],
    tower: str,
    text: str,
    has: tuple[str, ...],
    forms: Forms = CORE,
    norms: tuple[str, str] = INSIDE,
    **more: Any,
) -> Layout:
    """A layout that is nothing but two prefixes, and forms of what only hybrid models have.

    `more` are further fields of Layout.
    """

    def rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
        yield from towers.hf_tower(config, tower)
        yield from language.language(config, vocab_rows, text, norms, forms)

    fields: dict[str, Any] = {"lacks": (), "stacks": language.stacks, "replicated": True, **more}
    return Layout(
        name=name,
        trainers=trainers,
        serves=serves,
        has=has,
        rules=rules,
        spellings=lambda config: language.spellings(config, text, forms, norms),
        extra_state=lambda config: language.extra_state(config, text, forms),
        tower=tower,
        text=text,
        less_one=lambda config: forms.less_one(config, text),
        **fields,
    )


MEGATRON_BRIDGE_0_3 = hf_tower_layout(
    "megatron-bridge-0.3",
    "Megatron-Bridge 0.2.1 to 0.3.1, Qwen3-VL",
    lambda traits: traits.deepstack,
    tower="vision_model.",
    text="language_model.",
    has=("vision_model.blocks.", "language_model."),
    lacks=(".A_log",),
    run_config=True,
    load=(("Megatron-Bridge", "checkpoint.pretrained_checkpoint={0}"),),
    adapters=("megatron-bridge",),
)

MEGATRON_BRIDGE_QWEN2_5 = hf_tower_layout(
    "megatron-bridge-qwen2_5",
    "Megatron-Bridge, Qwen2.5-VL",
    lambda traits: traits.windows,
    tower="visual.",
    text="language_model.",
    has=("visual.patch_embed.", "language_model.decoder."),
    lacks=(".A_log",),
    run_config=True,
    load=(("Megatron-Bridge", "checkpoint.pretrained_checkpoint={0}"),),
    adapters=("megatron-bridge",),
)

MS_SWIFT = hf_tower_layout(
    "ms-swift",
    "ms-swift, mcore-bridge",
    lambda traits: traits.deepstack or traits.windows,
    tower="visual.visual.",
    text="language_model.",
    has=("visual.visual.", "language_model."),
    lacks=(".A_log",),
    untied_hint="ms-swift with some transformers 5 versions builds Qwen3-VL-MoE tied by mistake: "
    "its output layer was never trained apart, so there is nothing to convert it from.",
    numbered=True,
    load=(("ms-swift", "--mcore_model {0}"),),
    adapters=("ms-swift",),
)

ROLL = hf_tower_layout(
    "roll",
    "ROLL mcore_adapter",
    lambda traits: traits.tower,
    tower="vision_model.",
    text="",
    has=("vision_model.blocks.", "decoder.", "embedding."),
    load=(),
    adapters=("megatron-bridge", "ms-swift"),
)
