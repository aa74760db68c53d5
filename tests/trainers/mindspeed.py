"""MindSpeed-MM: image_encoder and text_decoder."""

from __future__ import annotations

from . import decoder, vision
from .decoder import Tensors
from .sizes import Sizes
from .vision import below, renamed

ENCODER = "image_encoder.encoder."
LAYERS = "image_encoder.encoder.blocks.layers"


def mindspeed(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen3-VL and Qwen2.5-VL: Megatron's blocks with norms beside the linear layers, experts one by one."""
    out = _patches(s, hf) | vision.blocks(s, hf, LAYERS, vision.LOCAL) | _projector(s, hf)
    for place, block in enumerate(s.deepstack):
        out |= _merger(hf, f"{s.visual}deepstack_merger_list.{place}.", f"{LAYERS}.{block}.deepstack_layer.")
    for name, t in decoder.language(s, hf, "text_decoder.", decoder.LOCAL).items():
        before, _, fc = name.partition("mlp.experts.experts.")
        out |= {f"{before}mlp.experts.local_experts.{e}.{fc}": t[e] for e in range(s.experts)} if fc else {name: t}
    return out


def canonical(s: Sizes, hf: Tensors) -> Tensors:
    """Qwen2.5-VL in Hugging Face's own pieces: q, k, v and gate, up apart, the vision QKV as it is."""
    out = _patches(s, hf) | _projector(s, hf)
    for i in range(s.depth):
        block = below(hf, f"{s.visual}blocks.{i}.")
        out |= {f"{LAYERS}.{i}.{_canonical(name)}": t for name, t in block.items()}
    out["text_decoder.embedding.word_embeddings.weight"] = hf[f"{s.text}embed_tokens.weight"]
    out["text_decoder.decoder.final_layernorm.weight"] = hf[f"{s.text}norm.weight"]
    for name, t in below(hf, f"{s.text}layers.").items():
        out[f"text_decoder.decoder.layers.{_canonical(name)}"] = t
    return out if s.tied else out | {"text_decoder.output_layer.weight": hf["lm_head.weight"]}


CANONICAL = (
    ("norm1", "input_layernorm"),
    ("norm2", "pre_mlp_layernorm"),
    ("post_attention_layernorm", "pre_mlp_layernorm"),
    ("attn.qkv", "self_attention.linear_qkv"),
    ("attn.proj", "self_attention.linear_proj"),
    ("self_attn.o_proj", "self_attention.linear_proj"),
    ("self_attn", "self_attention"),
    ("down_proj", "linear_fc2"),
)


def _canonical(name: str) -> str:
    """What becomes of a module's name: the first line of the table that meets it."""
    theirs, ours = next((pair for pair in CANONICAL if pair[0] in name), ("", ""))
    return name.replace(theirs, ours) if theirs else name


def _patches(s: Sizes, hf: Tensors) -> Tensors:
    return renamed(hf, f"{s.visual}patch_embed.", f"{ENCODER}patch_embed.") | renamed(
        hf, f"{s.visual}pos_embed.", f"{ENCODER}pos_embed."
    )


def _projector(s: Sizes, hf: Tensors) -> Tensors:
    if s.kind != "qwen2_5_vl":
        return _merger(hf, f"{s.visual}merger.", "image_encoder.projector.")
    out = renamed(hf, f"{s.visual}merger.ln_q.", "image_encoder.projector.layernorm.")
    for fc, place in ((1, 0), (2, 2)):
        out |= renamed(hf, f"{s.visual}merger.mlp.{place}.", f"image_encoder.projector.encoder.linear_fc{fc}.")
    return out


def _merger(hf: Tensors, theirs: str, ours: str) -> Tensors:
    return renamed(hf, f"{theirs}norm.", f"{ours}layernorm.") | renamed(hf, f"{theirs}linear", f"{ours}encoder.linear")
