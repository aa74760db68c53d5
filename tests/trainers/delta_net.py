"""A Gated DeltaNet as each trainer has it, out of either form on the Hub, with the norm before it.

All of them hold it in the dtype of the whole model, what the Hub has in float32 too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from .sizes import Sizes

Tensors = dict[str, Any]


class Rows(NamedTuple):
    """What the projections make, each flat: all rows of head 0, of head 1, …"""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    z: torch.Tensor
    beta: torch.Tensor
    alpha: torch.Tensor


def projections(s: Sizes, layer: Tensors) -> Rows:
    """Qwen3.5 has four of them; Qwen3-Next has two, in which each key head's parts lie together."""
    keys, values = s.key_heads * s.key_dim, s.value_heads * s.value_dim
    if "linear_attn.in_proj_qkv.weight" in layer:
        qkv = layer["linear_attn.in_proj_qkv.weight"].split([keys, keys, values])
        return Rows(*qkv, *(layer[f"linear_attn.in_proj_{x}.weight"] for x in "zba"))
    few, many = s.key_dim, values // s.key_heads
    qkvz = _apart(s, layer["linear_attn.in_proj_qkvz.weight"], [few, few, many, many])
    return Rows(*qkvz, *_apart(s, layer["linear_attn.in_proj_ba.weight"], [s.value_heads // s.key_heads] * 2))


def _apart(s: Sizes, rows: torch.Tensor, each: list[int]) -> list[torch.Tensor]:
    heads = [head.split(each) for head in rows.chunk(s.key_heads)]
    return [torch.cat(part) for part in zip(*heads, strict=True)]


def kernels(s: Sizes, layer: Tensors) -> list[torch.Tensor]:
    """The convolution's rows for queries, keys and values, flat in every release."""
    keys, values = s.key_heads * s.key_dim, s.value_heads * s.value_dim
    return list(layer["linear_attn.conv1d.weight"].split([keys, keys, values]))


def by_key_head(s: Sizes, *parts: torch.Tensor) -> torch.Tensor:
    """For each key head, its rows of every part."""
    heads = zip(*(part.chunk(s.key_heads) for part in parts), strict=True)
    return torch.cat([piece for head in heads for piece in head])


def core(s: Sizes, layer: Tensors) -> Tensors:
    """megatron-core: a key per part, and an output norm that is zero-centred as all others are."""
    rows, at = projections(s, layer), "self_attention."
    out = {f"{at}in_proj.weight.{name}": t for name, t in rows._asdict().items()}
    out |= dict(zip((f"{at}conv1d.weight.{x}" for x in ("query", "key", "value")), kernels(s, layer), strict=True))
    norm = layer["linear_attn.norm.weight"].float() - 1
    out |= {f"{at}in_proj.layer_norm_weight": layer["input_layernorm.weight"], f"{at}out_norm.weight": norm}
    return _rest(out, layer)


def swift(s: Sizes, layer: Tensors) -> Tensors:
    """ms-swift: one projection and one convolution, the parts of a key head together; the norm as it is."""
    at = "self_attention."
    out = {
        f"{at}in_proj.layer_norm_weight": layer["input_layernorm.weight"],
        f"{at}in_proj.weight": by_key_head(s, *projections(s, layer)),
    }
    return _swift(s, layer, out)


def swift_decoupled(s: Sizes, layer: Tensors) -> Tensors:
    """ms-swift, for FP8: the two small projections by themselves, the norm in front of both."""
    *wide, beta, alpha = projections(s, layer)
    out = {
        "input_layernorm.weight": layer["input_layernorm.weight"],
        "self_attention.in_proj_qkvz.weight": by_key_head(s, *wide),
        "self_attention.in_proj_ba.weight": by_key_head(s, beta, alpha),
    }
    return _swift(s, layer, out)


def _swift(s: Sizes, layer: Tensors, out: Tensors) -> Tensors:
    out["self_attention.conv1d.weight"] = by_key_head(s, *kernels(s, layer))
    out["self_attention.out_norm.weight"] = layer["linear_attn.norm.weight"]
    return _rest(out, layer)


def _rest(out: Tensors, layer: Tensors) -> Tensors:
    for name in ("A_log", "dt_bias", "out_proj.weight"):
        out[f"self_attention.{name}"] = layer[f"linear_attn.{name}"]
    return _one_dtype(out, layer)


def inside(at: str, norm: str, layer: Tensors) -> Tensors:
    """transformers' module inside a Megatron layer, behind `at`; its norm is called `norm`."""
    out = {at + name.removeprefix("linear_attn."): t for name, t in layer.items() if name.startswith("linear_attn.")}
    return _one_dtype(out | {norm: layer["input_layernorm.weight"]}, layer)


def swift_hf(s: Sizes, layer: Tensors) -> Tensors:
    """ms-swift with USE_MCORE_GDN=0, and its Qwen3-Next: the module is the attention itself."""
    return inside("self_attention.", "input_layernorm.weight", layer)


def slime(s: Sizes, layer: Tensors) -> Tensors:
    """slime: the module and the norm are parts of the attention."""
    return inside("self_attention.linear_attn.", "self_attention.input_layernorm.weight", layer)


def _one_dtype(out: Tensors, layer: Tensors) -> Tensors:
    return {name: t.to(layer["input_layernorm.weight"].dtype) for name, t in out.items()}
