"""Stands for AReaL's module of this name (cbff54d): whom it asks for a parameter, and with what."""

from __future__ import annotations

import inspect
from typing import Any


def own(tf_config: Any, name: str, param: Any) -> Any:
    """One of AReaL's own functions."""
    return [("AReaL's own", param)]


_CONVERSION_FN_REGISTRY: dict[str, Any] = dict.fromkeys(
    ["qwen3_lora", "qwen3_moe_lora", "qwen2_5_vl", "qwen3_vl_moe", "qwen3_vl", "qwen3_moe", "qwen2", "qwen3"], own
)


def convert_to_hf(
    tf_config: Any,
    model_name: str,
    name: str,
    param: Any,
    quantization_config: Any = None,
    fp8_direct_convert: bool = False,
    hf_config: Any = None,
) -> Any:
    """The first function whose key is a part of the model's name; it gets `hf_config` if it has such a parameter."""
    function = next(found for key, found in _CONVERSION_FN_REGISTRY.items() if key in model_name)
    takes = "hf_config" in inspect.signature(function).parameters
    return function(tf_config, name, param, **({"hf_config": hf_config} if takes else {}))
