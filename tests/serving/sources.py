"""Tiny Hugging Face models that vLLM can run on a CPU, where its attention takes heads of 32 and some larger sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tiny import tiny_config, write_tiny_hf


def _qwen3(model_type: str, tied: bool = False, **text: Any) -> dict[str, Any]:
    rope = {"mrope_interleaved": True, "mrope_section": [6, 5, 5], "rope_type": "default"}
    return tiny_config(model_type, tied=tied, text={"head_dim": 32, "rope_scaling": rope, **text})


def _qwen2_5(tied: bool = False) -> dict[str, Any]:
    """Heads of 32: its hidden size is heads x head_dim."""
    text = {
        "hidden_size": 128,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_scaling": {"type": "mrope", "mrope_section": [8, 4, 4]},
    }
    return tiny_config("qwen2_5_vl", tied=tied, text=text, vision={"out_hidden_size": 128})


SOURCES: dict[str, dict[str, Any]] = {
    "dense": _qwen3("qwen3_vl"),
    "dense, tied": _qwen3("qwen3_vl", tied=True),
    "experts": _qwen3("qwen3_vl_moe"),
    "some dense layers": _qwen3("qwen3_vl_moe", mlp_only_layers=[1]),
    "text, dense": tiny_config("qwen3", text={"head_dim": 32}),
    "text, experts": tiny_config("qwen3_moe", text={"head_dim": 32}),
    "text, qwen2.5": tiny_config(
        "qwen2", text={"hidden_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    ),
    "qwen2.5": _qwen2_5(),
    "qwen2.5, tied": _qwen2_5(tied=True),
}
"""config.json of each."""


def write_source(directory: Path, name: str) -> None:
    """A whole directory, in float32: what is compared is arithmetic, not rounding."""
    write_tiny_hf(directory, SOURCES[name], dtype="float32")
