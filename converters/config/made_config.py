"""A config.json made without one.

From a model's integers and what no shape shows, in the form that transformers 4.57 and 5 both read, where both know it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..models import Release, model_of
from ..models.shared.config import ModelConfig, TextConfig, VisionConfig
from ..models.shared.language import FULL, LINEAR
from ..models.shared.model import Model
from ..models.shared.traits import Traits
from .facts import DELTA_NET, EXPERTS, GEOMETRY, VISION, turns_in_part
from .hf_config import ROTARY


def made_config(
    config: ModelConfig, runtime: Mapping[str, Any], dtype: str = "bfloat16", release: Release | None = None
) -> dict[str, Any]:
    """A complete config.json.

    Args:
        config: the integers.
        runtime: rope_theta, rms_norm_eps; mrope_section of a model with a vision tower, and of another that has one;
            partial_rotary of one that rotates a part of each head; experts_per_token of one with experts;
            vision.window_size and vision.fullatt_block_indexes of one with windows.
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
    vision = _vision(config.vision, runtime, model) if config.vision else {}
    if model.traits.flat_config:  # vLLM before 0.11 and transformers before 4.56 know the dtype by its old name alone
        return {**top, "torch_dtype": dtype, **text, **({"vision_config": vision} if vision else {})}
    own = {"model_type": f"{model.model_type}_text", "dtype": dtype, "tie_word_embeddings": config.text.tied}
    return {**top, "text_config": text | own, "vision_config": {"model_type": model.model_type, **vision}}


def _text(c: TextConfig, runtime: Mapping[str, Any], model: Model) -> dict[str, Any]:
    traits, without = model.traits, _without(c, model.traits)
    text: dict[str, Any] = {field: getattr(c, name) for name, field in GEOMETRY.items() if name not in without}
    if traits.experts:
        text["num_experts_per_tok"] = runtime["experts_per_token"]
    if traits.dense_layers:
        text["mlp_only_layers"] = sorted(c.dense_layers)
    text |= {"rms_norm_eps": runtime["rms_norm_eps"], **_rope(runtime, model)}
    text |= dict(model.family.text) | dict(model.family.text_ids)
    return text | _layer_types(c, text) if traits.linear_attention else text


def _without(c: TextConfig, traits: Traits) -> set[str]:
    """Names of GEOMETRY that have no field in such a config."""
    without = set() if traits.experts else set(EXPERTS)
    without |= set() if traits.shared_expert else {"shared_ffn"}
    without |= set() if traits.linear_attention else set(DELTA_NET)
    without |= set() if traits.mtp and (c.mtp or traits.rope_parameters) else {"mtp"}  # Qwen3-Next's has no such field
    without |= set() if traits.head_dim_field else {"head_dim"}
    return without | (set() if c.ffn else {"ffn"})  # not known of a model that has experts in every layer


def _rope(runtime: Mapping[str, Any], model: Model) -> dict[str, Any]:
    scaling = dict(model.family.rope_scaling)
    if "mrope_section" in runtime:
        scaling["mrope_section"] = list(runtime["mrope_section"])
    else:  # nothing of three axes
        scaling.pop("mrope_interleaved", None)
    part = {ROTARY: runtime["partial_rotary"]} if turns_in_part(model) else {}
    if model.traits.rope_parameters:
        return {"rope_parameters": {**scaling, "rope_theta": runtime["rope_theta"], **part}}
    return {"rope_theta": runtime["rope_theta"], "rope_scaling": scaling or None, **part}


def _layer_types(c: TextConfig, text: Mapping[str, Any]) -> dict[str, Any]:
    """The layers one by one, and the interval of those that attend: null where they have none."""
    interval = text["full_attention_interval"]
    regular = c.linear_layers == {i for i in range(c.layers) if (i + 1) % interval}
    kinds = [LINEAR if c.is_linear(i) else FULL for i in range(c.layers)]
    return {"layer_types": kinds, "full_attention_interval": interval if regular else None}


def _vision(tower: VisionConfig, runtime: Mapping[str, Any], model: Model) -> dict[str, Any]:
    vision = {field: _listed(getattr(tower, name)) for name, field in VISION.items()}
    if not model.traits.position_table:
        del vision["num_position_embeddings"]
    if not model.traits.deepstack:
        del vision["deepstack_visual_indexes"]
    if model.traits.windows:
        vision |= {name: _listed(runtime[f"vision.{name}"]) for name in ("fullatt_block_indexes", "window_size")}
    also = {alias: vision[field] for field, alias in model.family.vision_aliases.items()}
    return vision | also | dict(model.family.vision)


def release_runtime(release: Release) -> dict[str, Any]:
    """What no shape shows of an official release; without what releases of these shapes dispute."""
    model = model_of(release.config)
    family = model.family
    runtime: dict[str, Any] = {}
    if family.rope_theta is not None:
        runtime["rope_theta"] = family.rope_theta
    if family.mrope_section:
        runtime["mrope_section"] = list(family.mrope_section)
    if turns_in_part(model):
        runtime["partial_rotary"] = family.rotary
    if release.rms_norm_eps is not None:
        runtime["rms_norm_eps"] = release.rms_norm_eps
    if model.traits.experts:
        runtime["experts_per_token"] = release.experts_per_token or family.experts_per_token
    if model.traits.windows:
        runtime["vision.fullatt_block_indexes"] = list(family.full_attention_blocks)
        runtime["vision.window_size"] = family.window_size
    return runtime


def release_facts(release: Release) -> dict[str, Any]:
    """All that is known of an official release, under the names of facts.py.

    But for its multi-token-prediction head, which a checkpoint of the release may have or not.
    """
    return config_facts(release.config) | release_runtime(release)


def config_facts(config: ModelConfig) -> dict[str, Any]:
    """A model's integers under the names of facts.py, without its multi-token-prediction head."""
    text, vision = config.text, config.vision
    facts: dict[str, Any] = {name: getattr(text, name) for name in (*GEOMETRY, "tied") if name != "mtp"}
    facts["dense_layers"], facts["linear_layers"] = sorted(text.dense_layers), sorted(text.linear_layers)
    if vision:
        facts |= {f"vision.{name}": _listed(getattr(vision, name)) for name in VISION}
    return facts


def _listed(value: object) -> Any:
    return list(value) if isinstance(value, tuple) else value
