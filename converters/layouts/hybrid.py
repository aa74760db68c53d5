"""Layouts of hybrid models, with layers that attend and layers with a Gated DeltaNet, around a Hugging Face tower.

What tells ms-swift's from the others is named here, for its attention has their names and shapes in another order.
"""

from __future__ import annotations

from typing import Any

from .hf_towers import MS_SWIFT, hf_tower_layout
from .layout import Layout
from .mbridge import MBRIDGE
from .shared.decoder_layer import BESIDE
from .shared.linear_attention import SLIME, SWIFT, SWIFT_DECOUPLED, SWIFT_HF


def _layout(name: str, trainers: str, tower: str, has: tuple[str, ...], mark: str, **more: Any) -> Layout:
    """A hybrid model's layout, seen by what the names of its Gated DeltaNets have; `more`: as of hf_tower_layout."""
    return hf_tower_layout(
        name,
        trainers,
        lambda traits: traits.linear_attention and traits.tower,
        tower=tower,
        text="language_model.",
        has=has,
        holds=(f".self_attention.{mark}.",),
        **more,
    )


def _swift(name: str, trainers: str, mark: str, **more: Any) -> Layout:
    return _layout(name, trainers, "visual.visual.", ("visual.visual.", "language_model."), mark, **more)


MBRIDGE_QWEN3_5 = _layout(
    "mbridge-qwen3_5",
    "mbridge, Qwen3.5",
    "vision_model.",
    ("vision_model.blocks.", "language_model."),
    "in_proj",
    writes=("torch_dist", "torch"),
    load=MBRIDGE.load,
    adapters=("megatron-bridge",),
)

SWIFT_LOAD = MS_SWIFT.load

MS_SWIFT_GDN = _swift(
    "ms-swift-gdn",
    "ms-swift, mcore-bridge, Qwen3.5",
    "in_proj",
    forms=SWIFT,
    gdn="grouped",
    numbered=True,
    load=SWIFT_LOAD,
    adapters=("ms-swift",),
)

MS_SWIFT_GDN_DECOUPLED = _swift(
    "ms-swift-gdn-decoupled",
    "ms-swift with linear_decoupled_in_proj, Qwen3.5",
    "in_proj_qkvz",
    forms=SWIFT_DECOUPLED,
    gdn="grouped",
    numbered=True,
    load=SWIFT_LOAD,
    adapters=("ms-swift",),
)

MS_SWIFT_HF_GDN = _swift(
    "ms-swift-hf-gdn",
    "ms-swift with USE_MCORE_GDN=0, Qwen3.5",
    "in_proj_qkv",
    forms=SWIFT_HF,
    norms=BESIDE,
    gdn="replicated",
    writes=(),
    adapters=("ms-swift",),
)

SLIME_VL = _layout(
    "slime",
    "slime, Qwen3.5",
    "visual.",  # behind `model.`, which is taken for a wrapper's prefix
    ("visual.patch_embed.", "language_model.decoder."),
    "linear_attn",
    forms=SLIME,
    gdn="replicated",
    writes=(),
    adapters=("megatron-bridge",),
)
