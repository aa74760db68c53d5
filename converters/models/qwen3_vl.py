"""Qwen3-VL, dense: its config.json, its tensors on the Hugging Face side and its releases."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from .shared.config import ModelConfig, VisionConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.model import BridgeClasses, Model, Shapes
from .shared.release import QWEN_IDS, QWEN_TEXT_IDS, Family, Release, text_of_release
from .shared.traits import Prefixes, Traits
from .shared.vision import blocks, layer_norm, linear, vision_config

TRAITS = Traits(
    tower=True,
    qkv_bias=False,
    qk_norm=True,
    head_dim_field=True,
    gated_attention=False,
    linear_attention=False,
    fused_linear_projections=False,
    zero_centred_norms=False,
    experts=False,
    dense_layers=False,
    shared_expert=False,
    experts_on_hub="transposed",
    mtp=False,
    flat_config=False,
    plain_rope_type="default",
    rope_parameters=False,
    later_prefixes=None,
    position_table=True,
    deepstack=True,
    windows=False,
    gated_vision_mlp=False,
)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a Qwen3-VL config.json."""
    text = Fields(hf_config.get("text_config"), "text_config")
    return ModelConfig("qwen3_vl", text_config(text, tied, TRAITS), vision_config(hf_config, TRAITS))


def vision_tensors(v: VisionConfig) -> Shapes:
    """Every tensor of the vision tower without its prefix.

    LayerNorm with bias, an ungated MLP, one merger after the last block and one for each deepstack index.
    """
    norms = layer_norm("norm1", v.hidden) | layer_norm("norm2", v.hidden)
    attention = linear("attn.qkv", 3 * v.hidden, v.hidden) | linear("attn.proj", v.hidden, v.hidden)
    mlp = linear("mlp.linear_fc1", v.ffn, v.hidden) | linear("mlp.linear_fc2", v.hidden, v.ffn)
    tensors: Shapes = {
        "patch_embed.proj.weight": v.patch_shape,
        "patch_embed.proj.bias": (v.hidden,),
        "pos_embed.weight": (v.positions, v.hidden),
    }
    tensors |= blocks(v.depth, norms | attention | mlp)
    # The last merger normalises before patches are laid side by side, the deepstack ones after.
    tensors |= _merger("merger", v, v.hidden)
    for index in range(len(v.deepstack)):
        tensors |= _merger(f"deepstack_merger_list.{index}", v, v.merged)
    return tensors


def _merger(name: str, v: VisionConfig, norm: int) -> Shapes:
    fc1, fc2 = linear(f"{name}.linear_fc1", v.merged, v.merged), linear(f"{name}.linear_fc2", v.out_hidden, v.merged)
    return layer_norm(f"{name}.norm", norm) | fc1 | fc2


def small_tower(out_hidden: int) -> VisionConfig:
    """The vision tower of the releases up to 4B."""
    return _tower(24, 1024, 4096, out_hidden, (5, 11, 17))


def large_tower(out_hidden: int) -> VisionConfig:
    """The vision tower of the releases from 8B on."""
    return _tower(27, 1152, 4304, out_hidden, (8, 16, 24))


def _tower(depth: int, hidden: int, ffn: int, out_hidden: int, deepstack: tuple[int, ...]) -> VisionConfig:
    return VisionConfig(
        depth,
        hidden,
        heads=16,
        ffn=ffn,
        out_hidden=out_hidden,
        patch=16,
        temporal_patch=2,
        channels=3,
        merge=2,
        positions=2304,
        deepstack=deepstack,
    )


TEXT_FIELDS: Mapping[str, Any] = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 262_144,
    "use_cache": True,
}

FAMILY = Family(
    rope_theta=5_000_000,
    mrope_section=(24, 20, 20),
    token_ids=QWEN_IDS,
    text_ids=QWEN_TEXT_IDS,
    # Without a version transformers warns of a wrong tokenizer, and proposes a flag that breaks it.
    top={"transformers_version": "4.57.0.dev0"},
    rope_scaling={"mrope_interleaved": True, "rope_type": "default"},
    text=TEXT_FIELDS,
    vision={"hidden_act": "gelu_pytorch_tanh", "initializer_range": 0.02},
    variant="-Instruct",
    releases=(
        Release(
            "Qwen3-VL-2B",
            ModelConfig("qwen3_vl", text_of_release(28, 2048, 16, 8, 6144, tied=True), small_tower(2048)),
        ),
        Release(
            "Qwen3-VL-4B",
            ModelConfig("qwen3_vl", text_of_release(36, 2560, 32, 8, 9728, tied=True), small_tower(2560)),
        ),
        Release("Qwen3-VL-8B", ModelConfig("qwen3_vl", text_of_release(36, 4096, 32, 8, 12288), large_tower(4096))),
        Release("Qwen3-VL-32B", ModelConfig("qwen3_vl", text_of_release(64, 5120, 64, 8, 25600), large_tower(5120))),
    ),
)

QWEN3_VL = Model(
    model_type="qwen3_vl",
    architecture="Qwen3VLForConditionalGeneration",
    prefixes=Prefixes("model.language_model.", "model.visual."),
    traits=TRAITS,
    default_layout="mbridge",
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
    read_vision=vision_tensors,
    bridge=BridgeClasses(
        provider="megatron.bridge.models.qwen_vl.Qwen3VLModelProvider",
        vision_config="transformers.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLVisionConfig",
        text_config="transformers.models.qwen3_vl.configuration_qwen3_vl.Qwen3VLTextConfig",
    ),
)
