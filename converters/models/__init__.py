"""The models that can be converted, by model_type."""

from __future__ import annotations

from ..errors import CorruptError, UnsupportedError, shown
from .config import ModelConfig, TextConfig, VisionConfig
from .fields import Json, Tie, decide_tie
from .model import Model, Shapes
from .qwen2_5_vl import QWEN2_5_VL
from .qwen3_vl import QWEN3_VL
from .qwen3_vl_moe import QWEN3_VL_MOE

__all__ = [
    "MODELS",
    "Json",
    "Model",
    "ModelConfig",
    "Shapes",
    "TextConfig",
    "Tie",
    "VisionConfig",
    "decide_tie",
    "model_for",
]

MODELS: dict[str, Model] = {model.model_type: model for model in (QWEN3_VL, QWEN3_VL_MOE, QWEN2_5_VL)}

REFUSED = {
    "qwen_vl": "Qwen-VL (the first)",
    "qwen2_vl": "Qwen2-VL",
    "qwen2_5_omni": "Qwen2.5-Omni",
    "qwen3_omni_moe": "Qwen3-Omni",
    "qwen3_5": "Qwen3.5-VL (hybrid linear attention)",
    "qwen3_5_moe": "Qwen3.5-VL MoE (hybrid linear attention)",
    "qwen3_next": "Qwen3-Next (hybrid linear attention)",
    "qwen2": "Qwen2 (a text-only model)",
    "qwen3": "Qwen3 (a text-only model)",
    "qwen3_moe": "Qwen3-MoE (a text-only model)",
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
    if hf_config.get("quantization_config") is not None:
        raise UnsupportedError(
            f"config.json describes quantised weights of {kind} (quantization_config)", "Use the unquantised model."
        )
    return MODELS[kind]
