"""The few numbers of a config.json that the formulas need."""

from __future__ import annotations

from typing import Any, NamedTuple


class Sizes(NamedTuple):
    """Of a tiny model; `text` and `visual` are the Hub's prefixes."""

    kind: str
    text: str
    visual: str
    layers: int
    heads: int
    groups: int
    experts: int
    depth: int
    vision_heads: int
    deepstack: list[int]
    tied: bool


def sizes(config: dict[str, Any]) -> Sizes:
    """Read a config.json."""
    text, vision, old = config.get("text_config", config), config["vision_config"], config["model_type"] == "qwen2_5_vl"
    return Sizes(
        kind=config["model_type"],
        text="model." if old else "model.language_model.",
        visual="visual." if old else "model.visual.",
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        groups=text["num_key_value_heads"],
        experts=text.get("num_experts", 0),
        depth=vision["depth"],
        vision_heads=vision["num_heads"],
        deepstack=vision.get("deepstack_visual_indexes", []),
        tied=config["tie_word_embeddings"],
    )
