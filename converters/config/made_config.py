"""A config.json made without one.

From a model's integers and what no shape shows, in the form that transformers 4.57 and 5 both read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models import Release, model_of
from ..models.shared.config import ModelConfig, TextConfig
from ..models.shared.model import Model
from .facts import GEOMETRY, VISION


def made_config(
    config: ModelConfig, runtime: Mapping[str, Any], dtype: str = "bfloat16", release: Release | None = None
) -> dict[str, Any]:
    """A complete config.json.

    Args:
        config: the integers.
        runtime: rope_theta, mrope_section, rms_norm_eps; of a model with experts experts_per_token; of one with windows
            vision.window_size and vision.fullatt_block_indexes.
        dtype: of the weights.
        release: the official release that this is, if it is one.
    """
    model = model_of(config)
    text = _text(config.text, runtime, model) | dict(release.text if release else {})
    top = {
        "architectures": [model.architecture],
        "model_type": model.model_type,
        "dtype": dtype,
        "tie_word_embeddings": config.text.tied,
        **model.family.token_ids,
        **model.family.top,
    }
    vision = _vision(config, runtime, model)
    if model.traits.flat_config:  # vLLM before 0.11 and transformers before 4.56 know the dtype by its old name alone
        return {**top, "torch_dtype": dtype, **text, "vision_config": vision}
    own = {"model_type": f"{model.model_type}_text", "dtype": dtype, "tie_word_embeddings": config.text.tied}
    return {**top, "text_config": text | own, "vision_config": {"model_type": model.model_type, **vision}}


def _text(c: TextConfig, runtime: Mapping[str, Any], model: Model) -> dict[str, Any]:
    text = {field: getattr(c, name) for name, field in GEOMETRY.items()}
    if not model.traits.experts:
        del text["num_experts"], text["moe_intermediate_size"]
    if not c.ffn:  # not known of a model that has experts in every layer
        del text["intermediate_size"]
    if not model.traits.head_dim_field:
        del text["head_dim"]
    if model.traits.experts:
        text |= {"mlp_only_layers": sorted(c.dense_layers), "num_experts_per_tok": runtime["experts_per_token"]}
    rope = {**model.family.rope_scaling, "mrope_section": list(runtime["mrope_section"])}
    text |= {"rms_norm_eps": runtime["rms_norm_eps"], "rope_theta": runtime["rope_theta"], "rope_scaling": rope}
    return text | dict(model.family.text) | dict(model.family.text_ids)


def _vision(config: ModelConfig, runtime: Mapping[str, Any], model: Model) -> dict[str, Any]:
    vision = {field: _listed(getattr(config.vision, name)) for name, field in VISION.items()}
    if not model.traits.position_table:
        del vision["num_position_embeddings"]
    if not model.traits.deepstack:
        del vision["deepstack_visual_indexes"]
    if model.traits.windows:
        vision |= {name: _listed(runtime[f"vision.{name}"]) for name in ("fullatt_block_indexes", "window_size")}
    also = {alias: vision[field] for field, alias in model.family.vision_aliases.items()}
    return vision | also | dict(model.family.vision)


def release_runtime(release: Release) -> dict[str, Any]:
    """What no shape shows of an official release; without rms_norm_eps where that is disputed."""
    model = model_of(release.config)
    family = model.family
    runtime: dict[str, Any] = {"rope_theta": family.rope_theta, "mrope_section": list(family.mrope_section)}
    if release.rms_norm_eps is not None:
        runtime["rms_norm_eps"] = release.rms_norm_eps
    if model.traits.experts:
        runtime["experts_per_token"] = family.experts_per_token
    if model.traits.windows:
        runtime["vision.fullatt_block_indexes"] = list(family.full_attention_blocks)
        runtime["vision.window_size"] = family.window_size
    return runtime


def release_facts(release: Release) -> dict[str, Any]:
    """All that is known of an official release, under the names of facts.py."""
    text, vision = release.config.text, release.config.vision
    facts: dict[str, Any] = {name: getattr(text, name) for name in (*GEOMETRY, "tied")}
    facts["dense_layers"] = sorted(text.dense_layers)
    facts |= {f"vision.{name}": _listed(getattr(vision, name)) for name in VISION}
    return facts | release_runtime(release)


def _listed(value: object) -> Any:
    return list(value) if isinstance(value, tuple) else value
