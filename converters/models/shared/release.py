"""An official release, and what all releases of a model share but no tensor shows.

Source: config.json of each repository on the Hub. Facts that change what a model computes (rope, epsilon, windows,
top-k) are taken from here only where a checkpoint comes without any config and its shapes fit exactly one release.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .config import ModelConfig, TextConfig

QWEN_IDS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}
"""Token ids at the top of config.json, those of Qwen2.5 and Qwen3 alike."""

QWEN_TEXT_IDS = {"bos_token_id": 151643, "eos_token_id": 151645}
"""Token ids of the language model's section, likewise."""


@dataclass(frozen=True, slots=True)
class Release:
    """One repository of the Hub, all of its variants (Instruct, Thinking) alike.

    Attributes:
        name: as on the Hub, without a variant's ending.
        config: its integers.
        rms_norm_eps: None: published configs disagree, so it has to come from elsewhere.
        experts_per_token: where it is not that of most releases.
        text: further fields of its language model's section that other releases of the model have otherwise.
    """

    name: str
    config: ModelConfig
    rms_norm_eps: float | None = 1e-6
    text: Mapping[str, Any] = field(default_factory=dict)
    experts_per_token: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """All releases of a model, and what they share.

    Attributes:
        rope_theta: base of the rotary embedding; None: releases of the same shapes disagree.
        mrope_section: frequencies for time, height and width, half of what is rotated together; () without a tower.
        rotary: the part of a head that positions rotate.
        experts_per_token: of a model with experts.
        full_attention_blocks: the vision blocks that see the whole image, of a model with windows.
        window_size: how far the others see, in pixels.
        top, token_ids, text_ids, rope_scaling, text, vision: fields of config.json that are the same in all releases
            and are written to a config that is made without one: at the top, in rope_scaling, in the language model's
            section and in vision_config. Token ids are overruled by what a checkpoint states.
        releases: the repositories.
        variant: the ending, on the Hub, of those whose tokenizer and processor files serve all variants.
        vision_aliases: fields of vision_config that the releases state under a second name: field -> that name.
    """

    rope_theta: int | None
    mrope_section: tuple[int, ...] = ()
    rotary: float = 1.0
    experts_per_token: int = 0
    full_attention_blocks: tuple[int, ...] = ()
    window_size: int = 0
    token_ids: Mapping[str, int]
    text_ids: Mapping[str, int]
    top: Mapping[str, Any]
    rope_scaling: Mapping[str, Any] = field(default_factory=dict)
    text: Mapping[str, Any]
    vision: Mapping[str, Any] = field(default_factory=dict)
    releases: tuple[Release, ...]
    variant: str = ""
    vision_aliases: Mapping[str, str] = field(default_factory=dict)


def text_of_release(
    layers: int,
    hidden: int,
    heads: int,
    groups: int,
    ffn: int,
    *,
    vocab: int = 151_936,
    tied: bool = False,
    head_dim: int = 128,
    moe: tuple[int, int] = (0, 0),
) -> TextConfig:
    """A release's language model; `moe` is the number of experts and their FFN width."""
    return TextConfig(layers, hidden, heads, groups, head_dim, ffn, vocab, tied, *moe)
