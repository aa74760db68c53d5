"""Qwen3.5, 3.6 and 3.8 with a mixture of experts, and one expert that all tokens pass, in every layer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from . import qwen3_5
from .shared.config import ModelConfig, TextConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.model import BridgeClasses
from .shared.release import Release
from .shared.vision import vision_config

TRAITS = replace(qwen3_5.TRAITS, experts=True, shared_expert=True)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3.5-MoE config.json."""
    text = Fields(hf_config.get("text_config"), "text_config")
    return ModelConfig("qwen3_5_moe", text_config(text, tied, TRAITS), vision_config(hf_config, TRAITS))


def text_of(
    layers: int, hidden: int, heads: int, groups: int, value_heads: int, experts: int, moe_ffn: int
) -> TextConfig:
    """A release's language model; the shared expert is as wide as the others."""
    dense = qwen3_5.text_of(layers, hidden, heads, groups, 0, moe=(experts, moe_ffn))
    return qwen3_5.hybrid(dense, value_heads, shared_ffn=moe_ffn)


def _release(name: str, text: TextConfig, experts_per_token: int = 0) -> Release:
    tower = qwen3_5.tower(*qwen3_5.LARGE, text.hidden)
    return Release(name, ModelConfig("qwen3_5_moe", text, tower), experts_per_token=experts_per_token)


FAMILY = replace(
    qwen3_5.FAMILY,
    experts_per_token=8,
    releases=(
        _release("Qwen3.5-35B-A3B", text_of(40, 2048, 16, 2, 32, 256, 512)),
        _release("Qwen3.5-122B-A10B", text_of(48, 3072, 32, 2, 64, 256, 1024)),
        _release("Qwen3.5-397B-A17B", text_of(60, 4096, 32, 2, 64, 512, 1024), 10),
    ),
)

QWEN3_5_MOE = replace(
    qwen3_5.QWEN3_5,
    model_type="qwen3_5_moe",
    architecture="Qwen3_5MoeForConditionalGeneration",
    traits=TRAITS,
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
    bridge=BridgeClasses(
        provider="megatron.bridge.models.qwen_vl.Qwen35VLMoEModelProvider",
        vision_config="transformers.models.qwen3_5_moe.configuration_qwen3_5_moe.Qwen3_5MoeVisionConfig",
    ),
)
