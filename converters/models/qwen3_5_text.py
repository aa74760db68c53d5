"""Qwen3.5, 3.6 and 3.8, text alone, dense and with experts: the same decoders, a flat config, another prefix."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from . import qwen3_5, qwen3_5_moe
from .shared.config import ModelConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.model import HYBRID_GPT
from .shared.release import Release
from .shared.traits import Prefixes

TRAITS = replace(qwen3_5.TRAITS, tower=False, flat_config=True, position_table=False)
TRAITS_MOE = replace(qwen3_5_moe.TRAITS, tower=False, flat_config=True, position_table=False)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a dense config.json."""
    return ModelConfig("qwen3_5_text", text_config(Fields(hf_config), tied, TRAITS))


def read_config_moe(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of one with experts."""
    return ModelConfig("qwen3_5_moe_text", text_config(Fields(hf_config), tied, TRAITS_MOE))


# No release is dense and without a tower: one is the language model of a release that has a tower.
FAMILY = replace(qwen3_5.FAMILY, token_ids={}, vision={}, releases=())

FAMILY_MOE = replace(
    FAMILY,
    experts_per_token=10,
    releases=(
        Release(
            "Qwen3.8-2.4T-A95B", ModelConfig("qwen3_5_moe_text", qwen3_5_moe.text_of(92, 8192, 64, 4, 128, 512, 2048))
        ),
    ),
)

QWEN3_5_TEXT = replace(
    qwen3_5.QWEN3_5,
    model_type="qwen3_5_text",
    architecture="Qwen3_5ForCausalLM",
    prefixes=Prefixes("model.", ""),
    traits=TRAITS,
    default_layout="megatron-lm",
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
    read_vision=None,
    bridge=HYBRID_GPT,
)

QWEN3_5_MOE_TEXT = replace(
    QWEN3_5_TEXT,
    model_type="qwen3_5_moe_text",
    architecture="Qwen3_5MoeForCausalLM",
    traits=TRAITS_MOE,
    family=FAMILY_MOE,
    read_config=read_config_moe,
    read_text=partial(text_tensors, traits=TRAITS_MOE),
    read_mtp=partial(mtp_tensors, traits=TRAITS_MOE),
)
