"""A config.json made without one.

From a model's integers and what no shape shows, in the form that transformers 4.57 and 5 both read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models import MODELS
from ..models.config import ModelConfig, TextConfig, VisionConfig
from ..models.releases import FAMILIES, TOKEN_IDS, Release
from .facts import GEOMETRY, VISION

TEXT_IDS = {"bos_token_id": 151643, "eos_token_id": 151645}


def made_config(config: ModelConfig, runtime: Mapping[str, Any], dtype: str = "bfloat16") -> dict[str, Any]:
    """A complete config.json.

    Args:
        config: the integers.
        runtime: rope_theta, mrope_section, rms_norm_eps; of a MoE model experts_per_token; of Qwen2.5-VL
            vision.window_size and vision.fullatt_block_indexes.
        dtype: of the weights.
    """
    model, tied = MODELS[config.model_type], config.text.tied
    text = _text(config.text, runtime) | {"max_position_embeddings": FAMILIES[config.model_type].max_position}
    top = {
        "architectures": [model.architecture],
        "model_type": config.model_type,
        "dtype": dtype,
        "tie_word_embeddings": tied,
        **TOKEN_IDS,
    }
    vision = {"model_type": config.model_type, **_vision(config.vision), **dict(FAMILIES[config.model_type].vision)}
    section = list(runtime["mrope_section"])
    if config.model_type == "qwen2_5_vl":  # flat, as on the Hub
        vision |= {name: _listed(runtime[f"vision.{name}"]) for name in ("fullatt_block_indexes", "window_size")}
        return {
            **top,
            **text,
            "rope_scaling": {"type": "mrope", "mrope_section": section},
            "use_sliding_window": False,
            "vision_config": vision,
        }
    vision |= {
        "deepstack_visual_indexes": list(config.vision.deepstack),
        "num_position_embeddings": config.vision.positions,
    }
    rope = {"mrope_interleaved": True, "mrope_section": section, "rope_type": "default"}
    text |= {
        "model_type": f"{config.model_type}_text",
        "attention_bias": False,
        "dtype": dtype,
        "head_dim": config.text.head_dim,
    }
    text |= {"rope_scaling": rope, "tie_word_embeddings": tied}
    if config.text.experts:
        text |= _experts(config.text, runtime)
    return {**top, "text_config": text, "vision_config": vision}


def release_runtime(release: Release) -> dict[str, Any]:
    """What no shape shows of an official release; without rms_norm_eps where that is disputed."""
    family = FAMILIES[release.config.model_type]
    runtime: dict[str, Any] = {"rope_theta": family.rope_theta, "mrope_section": list(family.mrope_section)}
    if release.rms_norm_eps is not None:
        runtime["rms_norm_eps"] = release.rms_norm_eps
    if release.config.text.experts:
        runtime["experts_per_token"] = family.experts_per_token
    return runtime | {
        f"vision.{name}": _listed(value)
        for name, value in family.vision
        if name in ("fullatt_block_indexes", "window_size")
    }


def release_facts(release: Release) -> dict[str, Any]:
    """All that is known of an official release, under the names of facts.py."""
    text, vision = release.config.text, release.config.vision
    facts: dict[str, Any] = {name: getattr(text, name) for name in (*GEOMETRY, "tied")} | {
        "dense_layers": sorted(text.dense_layers)
    }
    facts |= {f"vision.{name}": _listed(getattr(vision, name)) for name in VISION}
    return facts | release_runtime(release)


def _text(c: TextConfig, runtime: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "attention_dropout": 0.0,
        **TEXT_IDS,
        "hidden_act": "silu",
        "hidden_size": c.hidden,
        "initializer_range": 0.02,
        **({"intermediate_size": c.ffn} if c.ffn else {}),  # not known of a model that has experts in every layer
        "num_attention_heads": c.heads,
        "num_hidden_layers": c.layers,
        "num_key_value_heads": c.groups,
        "rms_norm_eps": runtime["rms_norm_eps"],
        "rope_theta": runtime["rope_theta"],
        "use_cache": True,
        "vocab_size": c.vocab,
    }


def _experts(c: TextConfig, runtime: Mapping[str, Any]) -> dict[str, Any]:
    """The sparse step is 1, so the dense layers are exactly those listed."""
    return {
        "decoder_sparse_step": 1,
        "mlp_only_layers": sorted(c.dense_layers),
        "moe_intermediate_size": c.moe_ffn,
        "norm_topk_prob": True,
        "num_experts": c.experts,
        "num_experts_per_tok": runtime["experts_per_token"],
    }


def _vision(v: VisionConfig) -> dict[str, Any]:
    return {
        "depth": v.depth,
        "hidden_size": v.hidden,
        "in_channels": v.channels,
        "initializer_range": 0.02,
        "intermediate_size": v.ffn,
        "num_heads": v.heads,
        "out_hidden_size": v.out_hidden,
        "patch_size": v.patch,
        "spatial_merge_size": v.merge,
        "temporal_patch_size": v.temporal_patch,
    }


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
