"""mbridge and Pai-Megatron-Patch: a vision tower of Megatron's own modules."""

from __future__ import annotations

from .decoder import Tensors, language
from .sizes import Sizes
from .vision import blocks, renamed

LAYERS = "vision_model.decoder.layers"


def mbridge(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen3-VL: mergers with `patch_norm`, those of deepstack in the decoder."""
    out = _patches(s, hf) | blocks(s, hf, LAYERS) | language(s, hf)
    mergers = [(f"{s.visual}merger.", "vision_model.merger.")]
    mergers += [
        (f"{s.visual}deepstack_merger_list.{i}.", f"vision_model.decoder.deepstack_merger_list.{i}.")
        for i in range(len(s.deepstack))
    ]
    for theirs, ours in mergers:
        out |= renamed(hf, f"{theirs}norm.", f"{ours}patch_norm.") | renamed(hf, f"{theirs}linear", f"{ours}linear")
    return out


def mbridge_qwen2_5(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen2.5-VL: the merger is the decoder's final norm and a projection."""
    out = _patches(s, hf) | blocks(s, hf, LAYERS) | language(s, hf)
    out |= renamed(hf, f"{s.visual}merger.ln_q.", "vision_model.decoder.final_layernorm.")
    for fc, place in ((1, 0), (2, 2)):
        out |= renamed(hf, f"{s.visual}merger.mlp.{place}.", f"vision_model.projection.encoder.linear_fc{fc}.")
    return out


def pai(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen3-VL: norms and projections of the mergers apart."""
    out = _patches(s, hf) | blocks(s, hf, LAYERS) | language(s, hf)
    out |= renamed(hf, f"{s.visual}merger.norm.", "vision_model.decoder.final_layernorm.")
    out |= renamed(hf, f"{s.visual}merger.linear", "vision_model.projection.encoder.linear")
    for i in range(len(s.deepstack)):
        theirs = f"{s.visual}deepstack_merger_list.{i}."
        out |= renamed(hf, f"{theirs}norm.", f"vision_model.decoder.deepstack_norm_list.{i}.")
        out |= renamed(hf, f"{theirs}linear", f"vision_model.decoder.deepstack_merger_list.{i}.encoder.linear")
    return out


def _patches(s: Sizes, hf: Tensors) -> Tensors:
    return renamed(hf, f"{s.visual}patch_embed.", "vision_model.patch_embed.") | renamed(
        hf, f"{s.visual}pos_embed.", "vision_model.pos_embed."
    )
