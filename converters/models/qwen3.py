"""Qwen3, dense, text alone: the decoder of Qwen3-VL with its own prefix and an ordinary rope."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from . import qwen3_vl
from .shared.config import ModelConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.model import GPT, Model
from .shared.release import QWEN_TEXT_IDS, Family, Release, text_of_release
from .shared.traits import Prefixes

TRAITS = replace(
    qwen3_vl.TRAITS,
    tower=False,
    experts_on_hub="per-expert",
    flat_config=True,
    position_table=False,
    deepstack=False,
)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3 config.json."""
    return ModelConfig("qwen3", text_config(Fields(hf_config), tied, TRAITS))


TEXT_FIELDS: Mapping[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 40_960,
    "sliding_window": None,
    "use_cache": True,
    "use_sliding_window": False,
}

FAMILY = Family(
    rope_theta=None,  # 1,000,000 in most, 5,000,000 in those of July 2025
    token_ids={},
    text_ids=QWEN_TEXT_IDS,
    top={"transformers_version": "4.51.0"},
    text=TEXT_FIELDS,
    releases=(
        Release("Qwen3-0.6B", ModelConfig("qwen3", text_of_release(28, 1024, 16, 8, 3072, tied=True))),
        Release("Qwen3-1.7B", ModelConfig("qwen3", text_of_release(28, 2048, 16, 8, 6144, tied=True))),
        Release("Qwen3-4B", ModelConfig("qwen3", text_of_release(36, 2560, 32, 8, 9728, tied=True))),
        Release("Qwen3-8B", ModelConfig("qwen3", text_of_release(36, 4096, 32, 8, 12288))),
        Release("Qwen3-14B", ModelConfig("qwen3", text_of_release(40, 5120, 40, 8, 17408))),
        Release("Qwen3-32B", ModelConfig("qwen3", text_of_release(64, 5120, 64, 8, 25600))),
    ),
)

QWEN3 = Model(
    model_type="qwen3",
    architecture="Qwen3ForCausalLM",
    prefixes=Prefixes("model.", ""),
    traits=TRAITS,
    default_layout="megatron-lm",
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
    read_vision=None,
    bridge=GPT,
)
