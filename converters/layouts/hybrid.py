"""Layouts of hybrid models, with layers that attend and layers with a Gated DeltaNet, around a Hugging Face tower.

What tells ms-swift's from the others is named here, for its attention has their names and shapes in another order.
"""

from __future__ import annotations

from .hf_towers import hf_tower_layout
from .shared.decoder_layer import BESIDE
from .shared.linear_attention import SLIME, SWIFT, SWIFT_DECOUPLED, SWIFT_HF

MBRIDGE_QWEN3_5 = hf_tower_layout(
    "mbridge-qwen3_5",
    "mbridge, Qwen3.5",
    lambda traits: traits.linear_attention and traits.tower,
    tower="vision_model.",
    text="language_model.",
    has=("vision_model.blocks.", "language_model."),
    holds=(".self_attention.in_proj.",),
    writes=("torch_dist", "torch"),
)

_SWIFT_NAMES = ("visual.visual.", "language_model.")

MS_SWIFT_GDN = hf_tower_layout(
    "ms-swift-gdn",
    "ms-swift, mcore-bridge, Qwen3.5",
    lambda traits: traits.linear_attention and traits.tower,
    tower="visual.visual.",
    text="language_model.",
    has=_SWIFT_NAMES,
    forms=SWIFT,
    holds=(".self_attention.in_proj.",),
    gdn="grouped",
    numbered=True,
)

MS_SWIFT_GDN_DECOUPLED = hf_tower_layout(
    "ms-swift-gdn-decoupled",
    "ms-swift with linear_decoupled_in_proj, Qwen3.5",
    lambda traits: traits.linear_attention and traits.tower,
    tower="visual.visual.",
    text="language_model.",
    has=_SWIFT_NAMES,
    forms=SWIFT_DECOUPLED,
    holds=(".self_attention.in_proj_qkvz.",),
    gdn="grouped",
    numbered=True,
)

MS_SWIFT_HF_GDN = hf_tower_layout(
    "ms-swift-hf-gdn",
    "ms-swift with USE_MCORE_GDN=0, Qwen3.5",
    lambda traits: traits.linear_attention and traits.tower,
    tower="visual.visual.",
    text="language_model.",
    has=_SWIFT_NAMES,
    forms=SWIFT_HF,
    norms=BESIDE,
    holds=(".self_attention.in_proj_qkv.",),
    gdn="replicated",
    writes=(),
)

SLIME_VL = hf_tower_layout(
    "slime",
    "slime, Qwen3.5",
    lambda traits: traits.linear_attention and traits.tower,
    tower="visual.",  # behind `model.`, which is taken for a wrapper's prefix
    text="language_model.",
    has=("visual.patch_embed.", "language_model.decoder."),
    forms=SLIME,
    holds=(".self_attention.linear_attn.",),
    gdn="replicated",
    writes=(),
)
