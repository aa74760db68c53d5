"""Qwen3-Next: the parts of Qwen3.5-MoE, of which it was the first: other projections, experts each by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from . import qwen3_5, qwen3_5_text
from .shared.config import ModelConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.release import QWEN_TEXT_IDS, Release, text_of_release

TRAITS = replace(
    qwen3_5_text.TRAITS_MOE,
    fused_linear_projections=True,
    dense_layers=True,
    experts_on_hub="per-expert",
    rope_parameters=False,  # transformers 4.57 knows the model
)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3-Next config.json, which does not say whether there is a multi-token-prediction head."""
    return ModelConfig("qwen3_next", text_config(Fields(hf_config), tied, TRAITS))


_TEXT = qwen3_5.hybrid(text_of_release(48, 2048, 16, 2, 5120, head_dim=256, moe=(512, 512)), 32, shared_ffn=512, mtp=0)

FAMILY = replace(
    qwen3_5_text.FAMILY,
    mrope_section=(),
    experts_per_token=10,
    text_ids=QWEN_TEXT_IDS,
    top={"transformers_version": "4.57.0.dev0"},
    rope_scaling={},
    text={
        "attention_bias": False,
        "attention_dropout": 0.0,
        "decoder_sparse_step": 1,
        "full_attention_interval": 4,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 262_144,
        "norm_topk_prob": True,
        "partial_rotary_factor": 0.25,
        "use_cache": True,
    },
    variant="-Instruct",
    releases=(Release("Qwen3-Next-80B-A3B", ModelConfig("qwen3_next", _TEXT)),),
)

QWEN3_NEXT = replace(
    qwen3_5_text.QWEN3_5_MOE_TEXT,
    model_type="qwen3_next",
    architecture="Qwen3NextForCausalLM",
    traits=TRAITS,
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
)
