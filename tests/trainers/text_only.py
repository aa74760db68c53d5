"""Checkpoints of a language model alone: of a text-only model, or of a vision-language model without its tower."""

from __future__ import annotations

from .decoder import LOCAL, SLIME, SWIFT_HF, Tensors, language
from .sizes import Sizes


def megatron_lm(s: Sizes, hf: Tensors) -> Tensors:
    """Megatron's GPTModel with nothing around it: Megatron-LM itself, and all that build on it."""
    return language(s, hf, "")


def slime_text(s: Sizes, hf: Tensors) -> Tensors:
    """slime: the same with transformers' Gated DeltaNet inside."""
    return language(s, hf, "", hybrid=SLIME)


def ms_swift_text(s: Sizes, hf: Tensors) -> Tensors:
    """ms-swift's Qwen3-Next, and others with USE_MCORE_GDN=0: every norm is a module of its own."""
    return language(s, hf, "", norms=LOCAL, hybrid=SWIFT_HF)


def language_model(s: Sizes, hf: Tensors) -> Tensors:
    """The language model of a vision-language model, under the name that it has there."""
    return language(s, hf)


def fsdp2_text(s: Sizes, hf: Tensors) -> Tensors:
    """As transformers names it."""
    return dict(hf)
