"""The models that can be converted, by model_type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..errors import CorruptError, ReferenceFault, UnsupportedError, shown
from .qwen2 import QWEN2
from .qwen2_5_vl import QWEN2_5_VL
from .qwen3 import QWEN3
from .qwen3_5 import QWEN3_5
from .qwen3_5_moe import QWEN3_5_MOE
from .qwen3_5_text import QWEN3_5_MOE_TEXT, QWEN3_5_TEXT
from .qwen3_moe import QWEN3_MOE
from .qwen3_next import QWEN3_NEXT
from .qwen3_vl import QWEN3_VL
from .qwen3_vl_moe import QWEN3_VL_MOE
from .shared.config import ModelConfig, TextConfig, VisionConfig
from .shared.fields import Json, Tie, decide_tie
from .shared.model import Model, Shapes
from .shared.release import Release
from .shared.traits import VISIBLE, Prefixes, Traits

__all__ = [
    "MODELS",
    "RELEASES",
    "Json",
    "Model",
    "ModelConfig",
    "Prefixes",
    "Release",
    "Shapes",
    "TextConfig",
    "Tie",
    "Traits",
    "VisionConfig",
    "decide_tie",
    "model_for",
    "model_of",
    "model_with",
    "release_of",
    "repository_of",
]

_ALL = (
    QWEN3_VL,
    QWEN3_VL_MOE,
    QWEN2_5_VL,
    QWEN3_5,
    QWEN3_5_MOE,
    QWEN2,
    QWEN3,
    QWEN3_MOE,
    QWEN3_5_TEXT,
    QWEN3_5_MOE_TEXT,
    QWEN3_NEXT,
)

MODELS: dict[str, Model] = {model.model_type: model for model in _ALL}

RELEASES: tuple[Release, ...] = tuple(release for model in MODELS.values() for release in model.family.releases)

REFUSED = {
    "qwen": "Qwen (the first)",
    "qwen_vl": "Qwen-VL (the first)",
    "qwen2_moe": "Qwen2-MoE, or Qwen1.5-MoE",
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_omni": "Qwen2.5-Omni",
    "qwen3_omni_moe": "Qwen3-Omni",
    "qwen4_exp": "Qwen3.8-Flash-Next, a preview of Qwen4 of another architecture",
    "qwen4_exp_text": "the text part of Qwen3.8-Flash-Next, a preview of Qwen4 of another architecture",
    "qwen3_vl_text": "the text part of Qwen3-VL alone",
    "qwen3_vl_moe_text": "the text part of Qwen3-VL-MoE alone",
    "qwen2_5_vl_text": "the text part of Qwen2.5-VL alone",
}
"""Neighbours that users do have, refused by the name they know."""


def model_for(hf_config: Json) -> Model:
    """The model of a config.json.

    Raises:
        UnsupportedError: another model_type, or quantised weights; says what is supported.
        CorruptError: no model_type at all.
    """
    kind = hf_config.get("model_type")
    if not isinstance(kind, str):
        raise CorruptError("config.json: model_type is missing", f"Supported: {', '.join(MODELS)}.")
    if kind not in MODELS:
        known = f"{REFUSED[kind]}, model_type {kind!r}" if kind in REFUSED else f"model_type {shown(kind)!r}"
        raise UnsupportedError(f"config.json names {known}, which is not supported", f"Supported: {', '.join(MODELS)}.")
    sections = (hf_config, *(value for value in hf_config.values() if isinstance(value, Mapping)))
    if any(section.get("quantization_config") is not None for section in sections):
        raise UnsupportedError(
            f"config.json describes quantised weights of {kind} (quantization_config)", "Use the unquantised model."
        )
    return MODELS[kind]


def model_of(config: ModelConfig) -> Model:
    """The model that some integers are of."""
    return MODELS[config.model_type]


def release_of(config: ModelConfig) -> Release | None:
    """The one official release of these integers, whether or not it comes with a multi-token-prediction head."""
    bare = _headless(config)
    fitting = [release for release in model_of(config).family.releases if _headless(release.config) == bare]
    return fitting[0] if len(fitting) == 1 else None


def repository_of(config: ModelConfig) -> str:
    """The official repository on the Hub whose tokenizer and processor files go with a model; "" where none is known.

    That of another size of the model where there is none of these integers.
    """
    family = model_of(config).family
    release = release_of(config) or next(iter(family.releases), None)
    return f"Qwen/{release.name}{family.variant}" if release else ""


def _headless(config: ModelConfig) -> ModelConfig:
    return replace(config, text=replace(config.text, mtp=0))


def model_with(seen: Mapping[str, bool]) -> Model:
    """The one model that has the traits which a checkpoint's names show.

    Args:
        seen: an answer for each of traits.VISIBLE.

    Raises:
        UnsupportedError: no model has just these, so it is one that is not converted; says what was seen.
        ReferenceFault: several have them.
    """
    fitting = [m for m in MODELS.values() if all(getattr(m.traits, name) is seen[name] for name in VISIBLE)]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise ReferenceFault(
            f"the tensors are those of {' and of '.join(m.model_type for m in fitting)}: no name tells them apart",
            "Pass --reference with the Hugging Face model that was trained.",
        )
    said = ", ".join(f"{name.replace('_', ' ')}: {'yes' if seen[name] else 'no'}" for name in VISIBLE)
    raise UnsupportedError(
        f"the tensors are those of no model that is converted ({said})", f"Supported: {', '.join(MODELS)}."
    )
