"""Megatron's language decoder out of Hugging Face tensors, one key per layer."""

from __future__ import annotations

from typing import Any

import torch

from .sizes import Sizes

Tensors = dict[str, Any]

TE = ("self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight")
"""The norms of a dense layer as Transformer Engine spells them."""

LOCAL = ("input_layernorm.weight", "pre_mlp_layernorm.weight")
"""The same as modules of their own."""


def language(s: Sizes, hf: Tensors, at: str = "language_model.", norms: tuple[str, str] = TE) -> Tensors:
    """Embedding, layers, final norm and, untied, the output layer, behind the prefix `at`."""
    out = {
        f"{at}embedding.word_embeddings.weight": hf[f"{s.text}embed_tokens.weight"],
        f"{at}decoder.final_layernorm.weight": hf[f"{s.text}norm.weight"],
    }
    for i in range(s.layers):
        layer = {
            name.removeprefix(f"{s.text}layers.{i}."): t
            for name, t in hf.items()
            if name.startswith(f"{s.text}layers.{i}.")
        }
        mixed = "mlp.gate.weight" in layer
        parts = attention(s, layer) | (experts(layer) if mixed else mlp(layer))
        parts[norms[0]] = layer["input_layernorm.weight"]
        parts["pre_mlp_layernorm.weight" if mixed else norms[1]] = layer["post_attention_layernorm.weight"]
        out |= {f"{at}decoder.layers.{i}.{name}": t for name, t in parts.items()}
    if not s.tied:
        out[f"{at}output_layer.weight"] = hf["lm_head.weight"]
    return out


def attention(s: Sizes, layer: Tensors) -> Tensors:
    """Query groups one after another: the group's query heads, its key head, its value head."""
    out = {"self_attention.linear_proj.weight": layer["self_attn.o_proj.weight"]}
    for last in ("weight", "bias"):
        if f"self_attn.q_proj.{last}" in layer:
            q, k, v = (layer[f"self_attn.{x}_proj.{last}"].chunk(s.groups) for x in "qkv")
            out[f"self_attention.linear_qkv.{last}"] = torch.cat(
                [torch.cat(group) for group in zip(q, k, v, strict=True)]
            )
    for x in "qk":
        if f"self_attn.{x}_norm.weight" in layer:
            out[f"self_attention.{x}_layernorm.weight"] = layer[f"self_attn.{x}_norm.weight"]
    return out


def mlp(layer: Tensors) -> Tensors:
    """Gate above up."""
    gated = torch.cat([layer["mlp.gate_proj.weight"], layer["mlp.up_proj.weight"]])
    return {"mlp.linear_fc1.weight": gated, "mlp.linear_fc2.weight": layer["mlp.down_proj.weight"]}


def experts(layer: Tensors) -> Tensors:
    """The Hub's experts are inputs by outputs; Megatron's are outputs by inputs, one below the other on an axis."""
    fc1, fc2 = (torch.stack([one.T for one in layer[f"mlp.experts.{name}"]]) for name in ("gate_up_proj", "down_proj"))
    return {
        "mlp.router.weight": layer["mlp.gate.weight"],
        "mlp.experts.experts.linear_fc1.weight": fc1,
        "mlp.experts.experts.linear_fc2.weight": fc2,
    }
