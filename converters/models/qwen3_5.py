"""Qwen3.5, 3.6 and 3.8, dense, with Qwen3-VL's vision tower without deepstack.

Three of four layers have a Gated DeltaNet, the others gated attention; a head predicts the token after the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from . import qwen3_vl
from .shared.config import ModelConfig, TextConfig, VisionConfig
from .shared.fields import Fields, Json
from .shared.language import kept_wide, mtp_tensors, text_config, text_tensors
from .shared.model import BridgeClasses, Model
from .shared.release import Family, Release, text_of_release
from .shared.traits import Prefixes
from .shared.vision import vision_config

TRAITS = replace(
    qwen3_vl.TRAITS,
    gated_attention=True,
    linear_attention=True,
    zero_centred_norms=True,
    experts_on_hub="packed",
    mtp=True,
    rope_parameters=True,
    deepstack=False,
)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3.5 config.json."""
    text = Fields(hf_config.get("text_config"), "text_config")
    return ModelConfig("qwen3_5", text_config(text, tied, TRAITS), vision_config(hf_config, TRAITS))


def hybrid(dense: TextConfig, value_heads: int, *, shared_ffn: int = 0, mtp: int = 1) -> TextConfig:
    """A release's language model: every fourth layer attends, the others have 16 key heads of 128, values likewise."""
    linear = frozenset(i for i in range(dense.layers) if (i + 1) % 4)
    return replace(
        dense,
        shared_ffn=shared_ffn,
        linear_layers=linear,
        key_heads=16,
        value_heads=value_heads,
        key_dim=128,
        value_dim=128,
        kernel=4,
        mtp=mtp,
    )


text_of = partial(text_of_release, vocab=248_320, head_dim=256)
"""The dimensions that all releases of this generation share."""

LARGE = (27, 1152, 4304)
"""Depth, width and FFN of the larger vision tower."""


def tower(depth: int, hidden: int, ffn: int, out_hidden: int) -> VisionConfig:
    """A release's vision tower: Qwen3-VL's, whose last merger is the only one."""
    large = qwen3_vl.large_tower(out_hidden)
    return replace(large, depth=depth, hidden=hidden, heads=16 if hidden > 768 else 12, ffn=ffn, deepstack=())


def _release(name: str, text: TextConfig, size: tuple[int, int, int] = LARGE) -> Release:
    return Release(name, ModelConfig("qwen3_5", text, tower(*size, text.hidden)))


TEXT_FIELDS: Mapping[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "attn_output_gate": True,
    "full_attention_interval": 4,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "mamba_ssm_dtype": "float32",
    "max_position_embeddings": 262_144,
    "mtp_use_dedicated_embeddings": False,
    "use_cache": True,
}

FAMILY = Family(
    rope_theta=10_000_000,
    mrope_section=(11, 11, 10),
    rotary=0.25,
    token_ids={
        "vision_start_token_id": 248053,
        "vision_end_token_id": 248054,
        "image_token_id": 248056,
        "video_token_id": 248057,
    },
    text_ids={"eos_token_id": 248044},
    top={"transformers_version": "5.2.0"},
    rope_scaling={"mrope_interleaved": True, "rope_type": "default"},
    text=TEXT_FIELDS,
    vision={"deepstack_visual_indexes": [], "hidden_act": "gelu_pytorch_tanh", "initializer_range": 0.02},
    releases=(
        _release("Qwen3.5-0.8B", hybrid(text_of(24, 1024, 8, 2, 3584, tied=True), 16), (12, 768, 3072)),
        _release("Qwen3.5-2B", hybrid(text_of(24, 2048, 8, 2, 6144, tied=True), 16), (24, 1024, 4096)),
        _release("Qwen3.5-4B", hybrid(text_of(32, 2560, 16, 4, 9216, tied=True), 32), (24, 1024, 4096)),
        _release("Qwen3.5-9B", hybrid(text_of(32, 4096, 16, 4, 12288), 32)),
        _release("Qwen3.5-27B", hybrid(text_of(64, 5120, 24, 4, 17408), 48)),
    ),
)

QWEN3_5 = Model(
    model_type="qwen3_5",
    architecture="Qwen3_5ForConditionalGeneration",
    prefixes=Prefixes("model.language_model.", "model.visual."),
    traits=TRAITS,
    default_layout="mbridge",
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
    read_vision=qwen3_vl.vision_tensors,
    kept_wide=kept_wide,
    bridge=BridgeClasses(
        provider="megatron.bridge.models.qwen_vl.Qwen35VLModelProvider",
        vision_config="transformers.models.qwen3_5.configuration_qwen3_5.Qwen3_5VisionConfig",
    ),
)
