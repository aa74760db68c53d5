"""Megatron's language decoder out of Hugging Face tensors, one key per layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from . import delta_net
from .attention import attention, gates_behind, grouped
from .sizes import Sizes

Tensors = dict[str, Any]

TE = ("self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight")
"""The norms of a dense layer as Transformer Engine spells them."""

LOCAL = ("input_layernorm.weight", "pre_mlp_layernorm.weight")
"""The same as modules of their own."""


class Hybrid(NamedTuple):
    """How a trainer builds the layers of a hybrid model."""

    delta_net: Callable[[Sizes, Tensors], Tensors]
    order: Callable[[Sizes, Tensors, str], torch.Tensor]  # of gated queries, keys and values


CORE = Hybrid(delta_net.core, gates_behind)
SWIFT = Hybrid(delta_net.swift, grouped)
SWIFT_DECOUPLED = Hybrid(delta_net.swift_decoupled, grouped)
SWIFT_HF = Hybrid(delta_net.swift_hf, grouped)
SLIME = Hybrid(delta_net.slime, gates_behind)


def language(
    s: Sizes, hf: Tensors, at: str = "language_model.", norms: tuple[str, str] = TE, hybrid: Hybrid = CORE
) -> Tensors:
    """Embedding, layers, final norm, the output layer where it is not tied, and the multi-token-prediction head where
    there is one, behind the prefix `at`.
    """
    out = {
        f"{at}embedding.word_embeddings.weight": hf[f"{s.text}embed_tokens.weight"],
        f"{at}decoder.final_layernorm.weight": hf[f"{s.text}norm.weight"],
    }
    for i in range(s.layers):
        parts = one_layer(s, _below(hf, f"{s.text}layers.{i}."), norms, hybrid)
        out |= {f"{at}decoder.layers.{i}.{name}": t for name, t in parts.items()}
    if not s.tied:
        out[f"{at}output_layer.weight"] = hf["lm_head.weight"]
    if "mtp.fc.weight" in hf:
        out |= {f"{at}mtp.layers.0.{name}": t for name, t in head(s, _below(hf, "mtp."), norms, hybrid).items()}
    return out


def one_layer(s: Sizes, layer: Tensors, norms: tuple[str, str], hybrid: Hybrid) -> Tensors:
    """What stands below `layers.N.`"""
    if "linear_attn.A_log" in layer:
        parts = hybrid.delta_net(s, layer)
    else:
        parts = attention(s, layer, hybrid.order if s.delta else grouped)
        parts[norms[0]] = layer["input_layernorm.weight"]
    mixed = "mlp.gate.weight" in layer
    parts |= experts(s, layer) if mixed else gated("mlp.", "mlp.", layer)
    parts["pre_mlp_layernorm.weight" if mixed else norms[1]] = layer["post_attention_layernorm.weight"]
    return parts


def head(s: Sizes, mtp: Tensors, norms: tuple[str, str], hybrid: Hybrid) -> Tensors:
    """The multi-token-prediction head: two norms, a projection of both halves, a layer, a norm."""
    out = {
        "enorm.weight": mtp["pre_fc_norm_embedding.weight"],
        "hnorm.weight": mtp["pre_fc_norm_hidden.weight"],
        "eh_proj.weight": mtp["fc.weight"],
        "final_layernorm.weight": mtp["norm.weight"],
    }
    parts = one_layer(s, _below(mtp, "layers.0."), norms, hybrid)
    return out | {f"transformer_layer.{name}": t for name, t in parts.items()}


def gated(ours: str, theirs: str, layer: Tensors) -> Tensors:
    """Gate above up."""
    both = torch.cat([layer[f"{theirs}gate_proj.weight"], layer[f"{theirs}up_proj.weight"]])
    return {f"{ours}linear_fc1.weight": both, f"{ours}linear_fc2.weight": layer[f"{theirs}down_proj.weight"]}


def experts(s: Sizes, layer: Tensors) -> Tensors:
    """A router, experts on an axis, and the one that all tokens pass where there is one."""
    fc1, fc2 = _stacked(s, layer)
    out = {
        "mlp.router.weight": layer["mlp.gate.weight"],
        "mlp.experts.experts.linear_fc1.weight": fc1,
        "mlp.experts.experts.linear_fc2.weight": fc2,
    }
    if "mlp.shared_expert_gate.weight" in layer:
        out |= gated("mlp.shared_experts.", "mlp.shared_expert.", layer)
        out["mlp.shared_experts.gate_weight"] = layer["mlp.shared_expert_gate.weight"]
    return out


def _stacked(s: Sizes, layer: Tensors) -> list[torch.Tensor]:
    """Megatron's experts are outputs by inputs, one below the other on an axis: as Qwen3.5's are; Qwen3-VL-MoE's on the
    Hub are inputs by outputs; Qwen3-MoE's and Qwen3-Next's are tensors of their own.
    """
    packed = [layer.get(f"mlp.experts.{name}") for name in ("gate_up_proj", "down_proj")]
    if packed[0] is None:
        each = [gated("", f"mlp.experts.{e}.", layer) for e in range(s.experts)]
        return [torch.stack([one[f"linear_fc{fc}.weight"] for one in each]) for fc in (1, 2)]
    turned = s.kind == "qwen3_vl_moe"
    return [torch.stack([one.T if turned else one for one in both]) for both in packed]


def _below(tensors: Tensors, prefix: str) -> Tensors:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
