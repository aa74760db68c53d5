"""Stands for mbridge's module of this name: the bridges of Qwen3-VL."""

from __future__ import annotations

from mbridge.core import Bridge, register_model


@register_model("qwen3_vl")
class Qwen3VLBridge(Bridge):
    """Of the dense one."""


@register_model("qwen3_vl_moe")
class Qwen3VLMoEBridge(Bridge):
    """Of the one with experts."""
