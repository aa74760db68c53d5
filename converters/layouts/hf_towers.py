"""The layouts that keep the Hugging Face vision tower inside a Megatron model.

Only its prefix differs, and where the language model stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from ..models.shared.config import ModelConfig
from ..models.shared.traits import Traits
from ..tensors.rules import Rule
from .layout import Layout, Spellings
from .shared import language, towers


def _rules(tower: str, text: str) -> Callable[[ModelConfig, int], Iterator[Rule]]:
    def rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
        yield from towers.hf_tower(config, tower)
        yield from language.language(config, vocab_rows, text)

    return rules


def _spellings(text: str) -> Callable[[ModelConfig], Spellings]:
    return lambda config: language.spellings(config, text)


def _extra_state(text: str) -> Callable[[ModelConfig], Iterator[str]]:
    return lambda config: language.extra_state(config, text)


def _layout(
    name: str,
    trainers: str,
    serves: Callable[[Traits], bool],
    tower: str,
    text: str,
    has: tuple[str, ...],
    *,
    untied_hint: str = "",
    run_config: bool = False,
    numbered: bool = False,
) -> Layout:
    """A layout that is nothing but two prefixes."""
    return Layout(
        name=name,
        trainers=trainers,
        serves=serves,
        has=has,
        lacks=(),
        rules=_rules(tower, text),
        spellings=_spellings(text),
        extra_state=_extra_state(text),
        stacks=lambda config: ("layers",),
        tower=tower,
        replicated=True,
        text=text,
        untied_hint=untied_hint,
        run_config=run_config,
        numbered=numbered,
    )


MEGATRON_BRIDGE_0_3 = _layout(
    "megatron-bridge-0.3",
    "Megatron-Bridge 0.2.1 to 0.3.1, Qwen3-VL",
    lambda traits: traits.deepstack,
    tower="vision_model.",
    text="language_model.",
    has=("vision_model.blocks.", "language_model."),
    run_config=True,
)

MEGATRON_BRIDGE_QWEN2_5 = _layout(
    "megatron-bridge-qwen2_5",
    "Megatron-Bridge, Qwen2.5-VL",
    lambda traits: traits.windows,
    tower="visual.",
    text="language_model.",
    has=("visual.patch_embed.", "language_model.decoder."),
    run_config=True,
)

MS_SWIFT = _layout(
    "ms-swift",
    "ms-swift, mcore-bridge",
    lambda traits: traits.deepstack or traits.windows,
    tower="visual.visual.",
    text="language_model.",
    has=("visual.visual.", "language_model."),
    untied_hint="ms-swift with some transformers 5 versions builds Qwen3-VL-MoE tied by mistake: "
    "its output layer was never trained apart, so there is nothing to convert it from.",
    numbered=True,
)

ROLL = _layout(
    "roll",
    "ROLL mcore_adapter",
    lambda traits: traits.deepstack or traits.windows,
    tower="vision_model.",
    text="",
    has=("vision_model.blocks.", "decoder.", "embedding."),
)
