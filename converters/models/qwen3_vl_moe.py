"""Qwen3-VL with a mixture of experts.

Qwen3-VL's vision tower, and experts in all layers but those the config keeps dense.
"""

from __future__ import annotations

from functools import partial

from .config import ModelConfig
from .fields import Fields, Json
from .language import text_config, text_tensors
from .model import Model
from .qwen3_vl import vision_tensors
from .vision import vision_config


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3-VL-MoE config.json; transformers 5 spells num_experts "num_local_experts"."""
    text = Fields(hf_config.get("text_config"), "text_config")
    return ModelConfig("qwen3_vl_moe", text_config(text, tied, moe=True), vision_config(hf_config, qwen3=True))


QWEN3_VL_MOE = Model(
    model_type="qwen3_vl_moe",
    architecture="Qwen3VLMoeForConditionalGeneration",
    text_prefix="model.language_model.",
    vision_prefix="model.visual.",
    read_config=read_config,
    read_text=partial(text_tensors, qkv_bias=False, qk_norm=True),
    read_vision=vision_tensors,
)
