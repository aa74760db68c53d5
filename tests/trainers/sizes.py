"""The few numbers of a config.json that the formulas need."""

from __future__ import annotations

from typing import Any, NamedTuple


class Sizes(NamedTuple):
    """Of a tiny model; `text` and `visual` are the Hub's prefixes; of a vision tower or a Gated DeltaNet that is not
    there, all is 0.
    """

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
    delta: bool  # some layers have a Gated DeltaNet, and attention is gated
    key_heads: int
    value_heads: int
    key_dim: int
    value_dim: int
    kernel: int


def sizes(config: dict[str, Any]) -> Sizes:
    """Read a config.json."""
    text, vision = config.get("text_config", config), config.get("vision_config", {})
    old = config["model_type"] == "qwen2_5_vl"
    return Sizes(
        kind=config["model_type"],
        text="model.language_model." if vision and not old else "model.",
        visual="visual." if old else "model.visual.",
        layers=text["num_hidden_layers"],
        heads=text["num_attention_heads"],
        groups=text["num_key_value_heads"],
        experts=text.get("num_experts", 0),
        depth=vision.get("depth", 0),
        vision_heads=vision.get("num_heads", 0),
        deepstack=vision.get("deepstack_visual_indexes", []),
        tied=config["tie_word_embeddings"],
        delta="linear_num_key_heads" in text,
        key_heads=text.get("linear_num_key_heads", 0),
        value_heads=text.get("linear_num_value_heads", 0),
        key_dim=text.get("linear_key_head_dim", 0),
        value_dim=text.get("linear_value_head_dim", 0),
        kernel=text.get("linear_conv_kernel_dim", 0),
    )
