"""The official releases: their geometry, and what is the same in a whole family but cannot be seen in shapes.

Source: config.json of each repository on the Hub. Used only where a checkpoint comes without any config and its shapes
fit exactly one release.
"""

from __future__ import annotations

from dataclasses import dataclass

from .config import ModelConfig, TextConfig, VisionConfig

TOKEN_IDS = {
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
}
"""The same in all families."""


@dataclass(frozen=True, slots=True)
class Family:
    """What all releases of a family share, beyond shapes."""

    rope_theta: int
    mrope_section: tuple[int, ...]  # frequencies for time, height, width; half a head dimension together
    max_position: int
    experts_per_token: int = 0
    vision: tuple[tuple[str, object], ...] = ()  # further fields of vision_config


@dataclass(frozen=True, slots=True)
class Release:
    """One repository of the Hub, all of its variants (Instruct, Thinking) alike."""

    name: str
    config: ModelConfig
    rms_norm_eps: float | None = 1e-6  # None: published configs disagree, so it has to come from elsewhere


_QWEN3_VISION = (("hidden_act", "gelu_pytorch_tanh"),)
_QWEN2_5_VISION = (
    ("fullatt_block_indexes", (7, 15, 23, 31)),
    ("hidden_act", "silu"),
    ("tokens_per_second", 2),
    ("window_size", 112),
)

FAMILIES: dict[str, Family] = {
    "qwen3_vl": Family(5_000_000, (24, 20, 20), 262_144, vision=_QWEN3_VISION),
    "qwen3_vl_moe": Family(5_000_000, (24, 20, 20), 262_144, experts_per_token=8, vision=_QWEN3_VISION),
    "qwen2_5_vl": Family(1_000_000, (16, 24, 24), 128_000, vision=_QWEN2_5_VISION),
}


def _tower(depth: int, hidden: int, ffn: int, out_hidden: int, deepstack: tuple[int, ...]) -> VisionConfig:
    """A vision tower of Qwen3-VL."""
    return VisionConfig(
        depth,
        hidden,
        16,
        ffn,
        out_hidden,
        patch=16,
        temporal_patch=2,
        channels=3,
        merge=2,
        positions=2304,
        deepstack=deepstack,
    )


def _small(out_hidden: int) -> VisionConfig:
    return _tower(24, 1024, 4096, out_hidden, (5, 11, 17))


def _large(out_hidden: int) -> VisionConfig:
    return _tower(27, 1152, 4304, out_hidden, (8, 16, 24))


def _windowed(ffn: int, out_hidden: int) -> VisionConfig:
    """A vision tower of Qwen2.5-VL."""
    return VisionConfig(32, 1280, 16, ffn, out_hidden, patch=14, temporal_patch=2, channels=3, merge=2)


def _text(
    layers: int,
    hidden: int,
    heads: int,
    groups: int,
    ffn: int,
    *,
    vocab: int = 151_936,
    tied: bool = False,
    moe: tuple[int, int] = (0, 0),
) -> TextConfig:
    """A language model; `moe` is the number of experts and their FFN width."""
    return TextConfig(layers, hidden, heads, groups, 128, ffn, vocab, tied, *moe)


RELEASES: tuple[Release, ...] = (
    Release("Qwen3-VL-2B", ModelConfig("qwen3_vl", _text(28, 2048, 16, 8, 6144, tied=True), _small(2048))),
    Release("Qwen3-VL-4B", ModelConfig("qwen3_vl", _text(36, 2560, 32, 8, 9728, tied=True), _small(2560))),
    Release("Qwen3-VL-8B", ModelConfig("qwen3_vl", _text(36, 4096, 32, 8, 12288), _large(4096))),
    Release("Qwen3-VL-32B", ModelConfig("qwen3_vl", _text(64, 5120, 64, 8, 25600), _large(5120))),
    Release(
        "Qwen3-VL-30B-A3B", ModelConfig("qwen3_vl_moe", _text(48, 2048, 32, 4, 6144, moe=(128, 768)), _large(2048))
    ),
    Release(
        "Qwen3-VL-235B-A22B", ModelConfig("qwen3_vl_moe", _text(94, 4096, 64, 4, 12288, moe=(128, 1536)), _large(4096))
    ),
    Release(
        "Qwen2.5-VL-3B", ModelConfig("qwen2_5_vl", _text(36, 2048, 16, 2, 11008, tied=True), _windowed(3420, 2048))
    ),
    Release(
        "Qwen2.5-VL-7B", ModelConfig("qwen2_5_vl", _text(28, 3584, 28, 4, 18944, vocab=152_064), _windowed(3420, 3584))
    ),
    Release(
        "Qwen2.5-VL-32B", ModelConfig("qwen2_5_vl", _text(64, 5120, 40, 8, 27648, vocab=152_064), _windowed(3456, 5120))
    ),
    Release(
        "Qwen2.5-VL-72B",
        ModelConfig("qwen2_5_vl", _text(80, 8192, 64, 8, 29568, vocab=152_064), _windowed(3456, 8192)),
        rms_norm_eps=None,
    ),
)
