"""Vision towers: Megatron's blocks out of Hugging Face's, and the Hugging Face tower as it is."""

from __future__ import annotations

import torch

from .decoder import Tensors
from .sizes import Sizes

TE = ("self_attention.linear_qkv.layer_norm_", "mlp.linear_fc1.layer_norm_")
LOCAL = ("input_layernorm.", "pre_mlp_layernorm.")


def tower(s: Sizes, hf: Tensors, at: str) -> Tensors:
    """The Hugging Face tower behind another prefix."""
    return {at + name.removeprefix(s.visual): t for name, t in hf.items() if name.startswith(s.visual)}


def below(hf: Tensors, prefix: str) -> Tensors:
    """The tensors behind a prefix, without it."""
    return {name.removeprefix(prefix): t for name, t in hf.items() if name.startswith(prefix)}


def renamed(tensors: Tensors, left: str, right: str) -> Tensors:
    """Every tensor `left…` as `right…`."""
    return {right + name: t for name, t in below(tensors, left).items()}


def blocks(s: Sizes, hf: Tensors, at: str, norms: tuple[str, str] = TE) -> Tensors:
    """All blocks: `at`.0.…, `at`.1.…"""
    out: Tensors = {}
    for i in range(s.depth):
        block = below(hf, f"{s.visual}blocks.{i}.")
        parts = (
            renamed(block, "norm1.", norms[0])
            | renamed(block, "norm2.", norms[1])
            | renamed(block, "attn.proj.", "self_attention.linear_proj.")
        )
        parts |= {
            f"self_attention.linear_qkv.{last}": by_head(block[f"attn.qkv.{last}"], s.vision_heads)
            for last in ("weight", "bias")
        }
        out |= {
            f"{at}.{i}.{name}": t
            for name, t in (parts | (gated(block) if s.kind == "qwen2_5_vl" else below_mlp(block))).items()
        }
    return out


def by_head(qkv: torch.Tensor, heads: int) -> torch.Tensor:
    """[q of all heads | k of all | v of all] -> for each head its q, its k, its v."""
    q, k, v = (part.chunk(heads) for part in qkv.chunk(3))
    return torch.cat([piece for head in zip(q, k, v, strict=True) for piece in head])


def gated(block: Tensors) -> Tensors:
    """Qwen2.5-VL: gate above up, weight and bias alike."""
    fc1 = {
        f"mlp.linear_fc1.{last}": torch.cat([block[f"mlp.gate_proj.{last}"], block[f"mlp.up_proj.{last}"]])
        for last in ("weight", "bias")
    }
    return fc1 | renamed(block, "mlp.down_proj.", "mlp.linear_fc2.")


def below_mlp(block: Tensors) -> Tensors:
    """Qwen3-VL: the MLP as it is."""
    return {name: t for name, t in block.items() if name.startswith("mlp.")}
