"""The Hugging Face vision tower within a Megatron model: Megatron-Bridge before 0.4, ms-swift, ROLL, mbridge's Qwen3.5,
slime; FSDP2 trainers: no Megatron model at all.
"""

from __future__ import annotations

from .decoder import LOCAL, SLIME, SWIFT, SWIFT_DECOUPLED, SWIFT_HF, Tensors, language
from .sizes import Sizes
from .vision import tower


def megatron_bridge_0_3(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen3-VL: `vision_model.`."""
    return tower(s, hf, "vision_model.") | language(s, hf)


def megatron_bridge_qwen2_5(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen2.5-VL: `visual.`."""
    return tower(s, hf, "visual.") | language(s, hf)


def ms_swift(s: Sizes, hf: Tensors) -> Tensors:
    """A module named visual that holds the model's visual."""
    return tower(s, hf, "visual.visual.") | language(s, hf)


def mbridge_qwen3_5(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen3.5: `vision_model.`, as Megatron-Bridge once had Qwen3-VL's."""
    return tower(s, hf, "vision_model.") | language(s, hf)


def ms_swift_gdn(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen3.5 with ms-swift's own Gated DeltaNet."""
    return tower(s, hf, "visual.visual.") | language(s, hf, hybrid=SWIFT)


def ms_swift_gdn_decoupled(s: Sizes, hf: Tensors) -> Tensors:
    """The same with linear_decoupled_in_proj."""
    return tower(s, hf, "visual.visual.") | language(s, hf, hybrid=SWIFT_DECOUPLED)


def ms_swift_hf_gdn(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen3.5 with transformers' Gated DeltaNet (USE_MCORE_GDN=0): every norm is a module of its own then, those of
    attention layers and of the multi-token-prediction head too.
    """
    return tower(s, hf, "visual.visual.") | language(s, hf, norms=LOCAL, hybrid=SWIFT_HF)


def slime(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen3.5's tower under the Hub's names, which do not begin with those of the language model."""
    return tower(s, hf, "model.visual.") | language(s, hf, hybrid=SLIME)


def fsdp2(s: Sizes, hf: Tensors) -> Tensors:
    """The model as transformers names it."""
    if s.kind != "qwen2_5_vl":
        return dict(hf)
    texts = {
        name.replace("model.", "model.language_model.", 1): t for name, t in hf.items() if name.startswith("model.")
    }
    return texts | tower(s, hf, "model.visual.") | {name: t for name, t in hf.items() if name == "lm_head.weight"}


def fsdp2_old(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen2.5-VL as transformers before 4.52 named it."""
    return dict(hf)


def roll(s: Sizes, hf: Tensors) -> Tensors:
    """The language model at the top, with no prefix."""
    return tower(s, hf, "vision_model.") | language(s, hf, "")
