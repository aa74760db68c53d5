"""Qwen3-VL with a mixture of experts: Qwen3-VL's vision tower, experts in all layers but those kept dense."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from . import qwen3_vl
from .shared.config import ModelConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.model import BridgeClasses
from .shared.release import Release, text_of_release
from .shared.vision import vision_config

TRAITS = replace(qwen3_vl.TRAITS, experts=True, dense_layers=True)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3-VL-MoE config.json; transformers 5 spells num_experts "num_local_experts"."""
    text = Fields(hf_config.get("text_config"), "text_config")
    return ModelConfig("qwen3_vl_moe", text_config(text, tied, TRAITS), vision_config(hf_config, TRAITS))


def _release(name: str, layers: int, hidden: int, heads: int, ffn: int, expert_ffn: int) -> Release:
    """Four groups of heads, 128 experts."""
    text = text_of_release(layers, hidden, heads, 4, ffn, moe=(128, expert_ffn))
    return Release(name, ModelConfig("qwen3_vl_moe", text, qwen3_vl.large_tower(hidden)))


FAMILY = replace(
    qwen3_vl.FAMILY,
    experts_per_token=8,
    # The sparse step is 1, so the dense layers are exactly those that mlp_only_layers lists.
    text={**qwen3_vl.TEXT_FIELDS, "decoder_sparse_step": 1, "norm_topk_prob": True},
    variant="-Instruct",
    releases=(
        _release("Qwen3-VL-30B-A3B", 48, 2048, 32, 6144, 768),
        _release("Qwen3-VL-235B-A22B", 94, 4096, 64, 12288, 1536),
    ),
)

QWEN3_VL_MOE = replace(
    qwen3_vl.QWEN3_VL,
    model_type="qwen3_vl_moe",
    architecture="Qwen3VLMoeForConditionalGeneration",
    traits=TRAITS,
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
    bridge=BridgeClasses(
        provider="megatron.bridge.models.qwen_vl.Qwen3VLMoEModelProvider",
        vision_config="transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe.Qwen3VLMoeVisionConfig",
        text_config="transformers.models.qwen3_vl_moe.configuration_qwen3_vl_moe.Qwen3VLMoeTextConfig",
    ),
)
