"""Qwen2.5 (and Qwen2), text alone: the decoder of Qwen2.5-VL with an ordinary rope."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from . import qwen2_5_vl
from .shared.config import ModelConfig, TextConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.model import GPT, Model
from .shared.release import QWEN_TEXT_IDS, Family, Release, text_of_release
from .shared.traits import Prefixes

TRAITS = replace(
    qwen2_5_vl.TRAITS,
    tower=False,
    plain_rope_type="default",
    later_prefixes=None,
    windows=False,
    gated_vision_mlp=False,
)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen2 or Qwen2.5 config.json."""
    return ModelConfig("qwen2", text_config(Fields(hf_config), tied, TRAITS))


def _release(name: str, text: TextConfig) -> Release:
    """The epsilon is 1e-5 in some base models and 1e-6 in their Instruct forms."""
    return Release(name, ModelConfig("qwen2", text), rms_norm_eps=None)


FAMILY = Family(
    rope_theta=None,  # 1,000,000 in most; other in Math, and in those for a million tokens
    token_ids={},
    text_ids=QWEN_TEXT_IDS,
    top={"transformers_version": "4.43.1"},
    text={
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 32_768,
        "sliding_window": None,
        "use_cache": True,
        "use_sliding_window": False,
    },
    variant="-Instruct",
    releases=(
        _release("Qwen2.5-0.5B", text_of_release(24, 896, 14, 2, 4864, tied=True, head_dim=64)),
        _release("Qwen2.5-1.5B", text_of_release(28, 1536, 12, 2, 8960, tied=True)),
        _release("Qwen2.5-3B", text_of_release(36, 2048, 16, 2, 11008, tied=True)),
        _release("Qwen2.5-7B", text_of_release(28, 3584, 28, 4, 18944, vocab=152_064)),
        _release("Qwen2.5-14B", text_of_release(48, 5120, 40, 8, 13824, vocab=152_064)),
        _release("Qwen2.5-32B", text_of_release(64, 5120, 40, 8, 27648, vocab=152_064)),
        _release("Qwen2.5-72B", text_of_release(80, 8192, 64, 8, 29568, vocab=152_064)),
    ),
)

QWEN2 = Model(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
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
