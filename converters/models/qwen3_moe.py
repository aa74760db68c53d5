"""Qwen3 with a mixture of experts, text alone. On the Hub each expert is by itself."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from . import qwen3
from .shared.config import ModelConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.release import Release, text_of_release

TRAITS = replace(qwen3.TRAITS, experts=True, dense_layers=True)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3-MoE config.json; transformers 5 spells num_experts "num_local_experts"."""
    return ModelConfig("qwen3_moe", text_config(Fields(hf_config), tied, TRAITS))


def _release(name: str, layers: int, hidden: int, heads: int, ffn: int, expert_ffn: int) -> Release:
    """Four groups of heads, 128 experts."""
    return Release(
        name, ModelConfig("qwen3_moe", text_of_release(layers, hidden, heads, 4, ffn, moe=(128, expert_ffn)))
    )


FAMILY = replace(
    qwen3.FAMILY,
    experts_per_token=8,
    text={**qwen3.TEXT_FIELDS, "decoder_sparse_step": 1, "norm_topk_prob": True},
    releases=(
        _release("Qwen3-30B-A3B", 48, 2048, 32, 6144, 768),
        _release("Qwen3-235B-A22B", 94, 4096, 64, 12288, 1536),
    ),
)

QWEN3_MOE = replace(
    qwen3.QWEN3,
    model_type="qwen3_moe",
    architecture="Qwen3MoeForCausalLM",
    traits=TRAITS,
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
)
