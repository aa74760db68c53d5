"""Qwen2.5-VL: its config.json, its tensors under the prefixes that every reader knows, and its releases."""

from __future__ import annotations

from functools import partial

from .shared.config import ModelConfig, VisionConfig
from .shared.fields import Fields, Json
from .shared.language import mtp_tensors, text_config, text_tensors
from .shared.model import BridgeClasses, Model, Shapes
from .shared.release import QWEN_IDS, QWEN_TEXT_IDS, Family, Release, text_of_release
from .shared.traits import Prefixes, Traits
from .shared.vision import blocks, linear, vision_config

TRAITS = Traits(
    tower=True,
    qkv_bias=True,
    qk_norm=False,
    head_dim_field=False,
    gated_attention=False,
    linear_attention=False,
    fused_linear_projections=False,
    zero_centred_norms=False,
    experts=False,
    dense_layers=False,
    shared_expert=False,
    experts_on_hub="transposed",
    mtp=False,
    flat_config=True,
    plain_rope_type="mrope",
    rope_parameters=False,
    later_prefixes=Prefixes("model.language_model.", "model.visual."),  # transformers 4.52 and later
    position_table=False,
    deepstack=False,
    windows=True,
    gated_vision_mlp=True,
)


def read_config(hf_config: Json, tied: bool) -> ModelConfig:
    """The integers of a config.json, flat as on the Hub or with a text_config; the head dimension is hidden / heads."""
    nested = hf_config.get("text_config") is not None
    text = Fields(hf_config["text_config"], "text_config") if nested else Fields(hf_config)
    return ModelConfig("qwen2_5_vl", text_config(text, tied, TRAITS), vision_config(hf_config, TRAITS))


def vision_tensors(v: VisionConfig) -> Shapes:
    """Every tensor of the vision tower without its prefix.

    RMSNorm, a gated MLP with bias, no position table, no bias in the patch embedding.
    """
    norms: Shapes = {"norm1.weight": (v.hidden,), "norm2.weight": (v.hidden,)}
    attention = linear("attn.qkv", 3 * v.hidden, v.hidden) | linear("attn.proj", v.hidden, v.hidden)
    gate_up = linear("mlp.gate_proj", v.ffn, v.hidden) | linear("mlp.up_proj", v.ffn, v.hidden)
    tensors: Shapes = {"patch_embed.proj.weight": v.patch_shape}
    tensors |= blocks(v.depth, norms | attention | gate_up | linear("mlp.down_proj", v.hidden, v.ffn))
    tensors["merger.ln_q.weight"] = (v.hidden,)
    return tensors | linear("merger.mlp.0", v.merged, v.merged) | linear("merger.mlp.2", v.out_hidden, v.merged)


def _tower(ffn: int, out_hidden: int) -> VisionConfig:
    return VisionConfig(
        32, 1280, heads=16, ffn=ffn, out_hidden=out_hidden, patch=14, temporal_patch=2, channels=3, merge=2
    )


FAMILY = Family(
    rope_theta=1_000_000,
    mrope_section=(16, 24, 24),
    full_attention_blocks=(7, 15, 23, 31),
    window_size=112,
    token_ids=QWEN_IDS,
    text_ids=QWEN_TEXT_IDS,
    top={"transformers_version": "4.41.2", "vision_token_id": 151654},
    rope_scaling={"type": "mrope"},
    text={
        "attention_dropout": 0.0,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": 128_000,
        "sliding_window": 32_768,
        "use_cache": True,
        "use_sliding_window": False,
    },
    vision={"hidden_act": "silu", "tokens_per_second": 2},
    vision_aliases={"in_channels": "in_chans", "patch_size": "spatial_patch_size"},
    variant="-Instruct",
    releases=(
        Release(
            "Qwen2.5-VL-3B",
            ModelConfig("qwen2_5_vl", text_of_release(36, 2048, 16, 2, 11008, tied=True), _tower(3420, 2048)),
            text={"max_window_layers": 70},
        ),
        Release(
            "Qwen2.5-VL-7B",
            ModelConfig("qwen2_5_vl", text_of_release(28, 3584, 28, 4, 18944, vocab=152_064), _tower(3420, 3584)),
            text={"max_window_layers": 28},
        ),
        Release(
            "Qwen2.5-VL-32B",
            ModelConfig("qwen2_5_vl", text_of_release(64, 5120, 40, 8, 27648, vocab=152_064), _tower(3456, 5120)),
            text={"max_window_layers": 64},
        ),
        Release(
            "Qwen2.5-VL-72B",
            ModelConfig("qwen2_5_vl", text_of_release(80, 8192, 64, 8, 29568, vocab=152_064), _tower(3456, 8192)),
            rms_norm_eps=None,
            text={"max_window_layers": 80},
        ),
    ),
)

QWEN2_5_VL = Model(
    model_type="qwen2_5_vl",
    architecture="Qwen2_5_VLForConditionalGeneration",
    prefixes=Prefixes("model.", "visual."),
    traits=TRAITS,
    default_layout="mbridge-qwen2_5",
    family=FAMILY,
    read_config=read_config,
    read_text=partial(text_tensors, traits=TRAITS),
    read_mtp=partial(mtp_tensors, traits=TRAITS),
    read_vision=vision_tensors,
    bridge=BridgeClasses(
        provider="megatron.bridge.models.qwen_vl.Qwen25VLModelProvider",
        vision_config="transformers.models.qwen2_5_vl.configuration_qwen2_5_vl.Qwen2_5_VLVisionConfig",
    ),
)
