"""Layouts without a vision tower: text-only models, and the language model of one with a tower, saved alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..models.shared.config import ModelConfig
from ..models.shared.traits import Traits
from ..tensors.rules import Rule
from .layout import Layout
from .shared import language
from .shared.decoder_layer import BESIDE, INSIDE
from .shared.linear_attention import CORE, SLIME, SWIFT_HF, Forms

_TOWERS = ("vision_model.", "visual.", "image_encoder.")


def _layout(
    name: str,
    trainers: str,
    serves: Callable[[Traits], bool],
    text: str,
    forms: Forms = CORE,
    norms: tuple[str, str] = INSIDE,
    lacks: tuple[str, ...] = (),
    **more: Any,
) -> Layout:
    def rules(config: ModelConfig, vocab_rows: int) -> Iterator[Rule]:
        yield from language.language(config, vocab_rows, text, norms, forms)

    return Layout(
        name=name,
        trainers=trainers,
        serves=serves,
        has=(f"{text}embedding.word_embeddings.", f"{text}decoder.layers."),
        lacks=(*_TOWERS, *lacks),
        rules=rules,
        spellings=lambda config: language.spellings(config, text, forms, norms),
        extra_state=lambda config: language.extra_state(config, text, forms),
        stacks=language.stacks,
        tower="",
        text=text,
        less_one=lambda config: forms.less_one(config, text),
        **more,
    )


MEGATRON_LM = _layout(
    "megatron-lm",
    "Megatron-LM, mbridge, Megatron-Bridge, slime, ms-swift, ROLL, Pai, text-only models",
    lambda traits: not traits.tower,
    text="",
    lacks=(".self_attention.linear_attn.", ".self_attention.in_proj_qkv"),
    writes=("torch_dist", "torch"),
    run_config=True,
    adapters=("megatron-bridge", "ms-swift"),
)

SLIME_TEXT = _layout(
    "slime-text",
    "slime, text-only hybrid models",
    lambda traits: traits.linear_attention and not traits.tower,
    text="",
    forms=SLIME,
    holds=(".self_attention.linear_attn.",),
    gdn="replicated",
    adapters=("megatron-bridge",),
)

MS_SWIFT_TEXT = _layout(
    "ms-swift-text",
    "ms-swift, Qwen3-Next, and text-only hybrid models with USE_MCORE_GDN=0",
    lambda traits: traits.linear_attention and not traits.tower,
    text="",
    forms=SWIFT_HF,
    norms=BESIDE,
    holds=(".self_attention.in_proj_qkv",),
    gdn="replicated",
    writes=(),
    adapters=("ms-swift",),
)

LANGUAGE_MODEL = _layout(
    "language-model",
    "the language model of a model with a vision tower, saved alone",
    lambda traits: traits.tower,
    text="language_model.",
    writes=(),
    adapters=("megatron-bridge",),
)
