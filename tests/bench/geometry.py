"""The models whose geometry is measured, as the config.json of a release with fewer layers."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

from vlconv.converters.models import model_for
from vlconv.converters.tensors.spec import TensorSpec

Config = dict[str, Any]

CONFIGS = Path(__file__).parents[1] / "fixtures" / "configs"

MODELS = {"2b": "Qwen3-VL-2B", "moe": "Qwen3-VL-30B-A3B"}
"""What --model takes -> the release."""

MOE_LAYERS = 6

QUICK: dict[str, Config] = {"2b": {"vocab_size": 16384}, "moe": {"vocab_size": 16384, "num_experts": 16}}
QUICK_LAYERS = 2
QUICK_TOWER = {"depth": 4, "deepstack_visual_indexes": [1]}

TINY_TEXT = {"hidden_size": 64, "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 16, "vocab_size": 1024}
TINY_TOWER = {
    "depth": 2,
    "deepstack_visual_indexes": [0],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_heads": 4,
    "num_position_embeddings": 16,
    "out_hidden_size": 64,
}


def release(name: str, text: Config | None = None, vision: Config | None = None) -> Config:
    """A release's config.json, with other fields of its language model and of its vision tower."""
    config: Config = json.loads((CONFIGS / f"{name}.json").read_text())
    config["text_config"].update(text or {})
    config["vision_config"].update(vision or {})
    return config


def asked(model: str, layers: int | None, quick: bool) -> Config:
    """The config.json of what --model, --layers and --quick ask for."""
    wanted = layers or (QUICK_LAYERS if quick else MOE_LAYERS if model == "moe" else None)
    text = {"num_hidden_layers": wanted} if wanted else {}
    return release(MODELS[model], text | (QUICK[model] if quick else {}), QUICK_TOWER if quick else {})


def dense(layers: int, **text: int) -> Config:
    """Qwen3-VL-2B with other sizes and next to no vision tower."""
    tower = {**TINY_TOWER, "out_hidden_size": text.get("hidden_size", 2048)}
    return release("Qwen3-VL-2B", {"num_hidden_layers": layers, **text}, tower)


def tiny(layers: int = 4) -> Config:
    """A model of next to no bytes: what it takes is what tensors and chunks take."""
    return release("Qwen3-VL-2B", {**TINY_TEXT, "num_hidden_layers": layers, "intermediate_size": 64}, TINY_TOWER)


def tiny_235b(layers: int = 94) -> Config:
    """As many layers, experts and tensors as Qwen3-VL-235B-A22B, each of next to no bytes."""
    text = {**TINY_TEXT, "num_hidden_layers": layers, "intermediate_size": 64, "moe_intermediate_size": 16}
    return release("Qwen3-VL-235B-A22B", text, TINY_TOWER)


def specs(config: Config) -> dict[str, TensorSpec]:
    """Every Hugging Face tensor of a config."""
    model = model_for(config)
    shapes = model.hf_tensors(model.config(config))
    return {name: TensorSpec(name, shape, "bfloat16") for name, shape in shapes.items()}


def nbytes(config: Config) -> int:
    """Bytes of all weights."""
    return sum(2 * prod(spec.shape) for spec in specs(config).values())
