"""A low-rank adapter of a tiny model: B for every Hugging Face weight, A for every module of Megatron's.

B's rows go the way of the weights' rows, so the trainers' formulas for weights (tests/trainers) give Megatron's B. No
formula here knows vlconv's.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import torch
from tiny import tiny_config, tiny_shapes, tiny_weights
from trainers.places import TRAINERS
from trainers.sizes import Sizes, sizes

Tensors = dict[str, torch.Tensor]

RANK = 4

MODULES = {
    "self_attn.q_proj": "self_attention.linear_qkv",
    "self_attn.k_proj": "self_attention.linear_qkv",
    "self_attn.v_proj": "self_attention.linear_qkv",
    "self_attn.o_proj": "self_attention.linear_proj",
    "mlp.gate_proj": "mlp.linear_fc1",
    "mlp.up_proj": "mlp.linear_fc1",
    "mlp.down_proj": "mlp.linear_fc2",
    "mlp.shared_expert.gate_proj": "mlp.shared_experts.linear_fc1",
    "mlp.shared_expert.up_proj": "mlp.shared_experts.linear_fc1",
    "mlp.shared_expert.down_proj": "mlp.shared_experts.linear_fc2",
    "linear_attn.in_proj_qkv": "self_attention.in_proj",
    "linear_attn.in_proj_z": "self_attention.in_proj",
    "linear_attn.in_proj_b": "self_attention.in_proj",
    "linear_attn.in_proj_a": "self_attention.in_proj",
    "linear_attn.out_proj": "self_attention.out_proj",
    "mlp.experts.gate_up_proj": "mlp.experts.experts.linear_fc1",
    "mlp.experts.down_proj": "mlp.experts.experts.linear_fc2",
    "mlp.experts.*.gate_proj": "mlp.experts.experts.linear_fc1",
    "mlp.experts.*.up_proj": "mlp.experts.experts.linear_fc1",
    "mlp.experts.*.down_proj": "mlp.experts.experts.linear_fc2",
    "mlp.gate": "mlp.router",
    "attn.qkv": "self_attention.linear_qkv",
    "attn.proj": "self_attention.linear_proj",
    "mlp.linear_fc1": "mlp.linear_fc1",
    "mlp.linear_fc2": "mlp.linear_fc2",
}
"""Modules of a Hugging Face layer, and the module of Megatron's that they are in."""


class Made(NamedTuple):
    """A tiny model and an adapter.

    Attributes:
        config: config.json.
        name: of the layout.
        hf: weights on the Hub's side.
        base: Megatron's tensors, one key per layer.
        a: Megatron's module -> A [rank, in], of experts [experts, rank, in].
        b: Megatron's module -> B [out, rank] in the order of the weight's rows, of experts [experts, out, rank].
        hf_b: Hugging Face weight -> its own B, as the Hub holds a weight of that name.
        inside: Hugging Face weight -> Megatron's module.
    """

    config: dict[str, Any]
    name: str
    hf: Tensors
    base: Tensors
    a: Tensors
    b: Tensors
    hf_b: Tensors
    inside: dict[str, str]

    @property
    def sizes(self) -> Sizes:
        return sizes(self.config)


def make(kind: str, name: str, targets: Callable[[str], bool] = lambda module: True, rank: int = RANK) -> Made:
    """A model, and an adapter of all modules of Megatron's that `targets` says.

    Args:
        kind: a model type.
        name: of the layout: a key of TRAINERS.
        targets: whether the module of that name has an adapter.
        rank: of all of them.
    """
    config = tiny_config(kind)
    hf = tiny_weights(tiny_shapes(config))
    inside = {weight: module for weight in hf if (module := module_of(config, name, weight)) and targets(module)}
    hf_b = {weight: _columns(f"B {weight}", hf[weight], rank, kind) for weight in inside}
    names, s = TRAINERS[name].names, sizes(config)
    base, rows = names(s, hf), names(s, hf | hf_b)
    b = {module: _weight(rows, module) for module in dict.fromkeys(inside.values())}
    a = {}
    for module, out in b.items():
        weight = _weight(base, module)
        a[module] = random(f"A {module}", (*out.shape[:-2], rank, weight.shape[-1]), weight.shape[-1] ** -0.5)
    return Made(config, name, hf, base, a, b, hf_b, inside)


def random(seed: str, shape: tuple[int, ...], deviation: float) -> torch.Tensor:
    """Numbers that depend on the seed alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    return (deviation * torch.randn(shape, generator=generator)).bfloat16()


def _columns(seed: str, weight: torch.Tensor, rank: int, kind: str) -> torch.Tensor:
    """B of a weight, as the Hub holds a weight: Qwen3-VL-MoE's experts are inputs by outputs."""
    if weight.ndim == 3 and kind == "qwen3_vl_moe":
        return random(seed, (weight.shape[0], rank, weight.shape[2]), 0.2)
    return random(seed, (*weight.shape[:-1], rank), 0.2)


def _weight(tensors: Tensors, module: str) -> torch.Tensor:
    """A module's weight, its pieces put together."""
    if f"{module}.weight" in tensors:
        return tensors[f"{module}.weight"]
    pieces = ("query", "key", "value", "z", "beta", "alpha")
    return torch.cat([tensors[f"{module}.weight.{piece}"] for piece in pieces])


def module_of(config: dict[str, Any], name: str, weight: str) -> str | None:
    """Megatron's module that a Hugging Face weight is in; None: of no linear layer that trainers adapt."""
    s = sizes(config)
    text = "" if name in ("megatron-lm", "roll") else "language_model."
    if weight == "lm_head.weight":
        return f"{text}output_layer"
    for prefix, ours, inner in (
        (f"{s.text}layers.", f"{text}decoder.layers.", ""),
        (f"{s.visual}blocks.", "vision_model.decoder.layers.", ""),
        ("mtp.layers.", f"{text}mtp.layers.", "transformer_layer."),
    ):
        if not weight.startswith(prefix) or (not s.depth and prefix.startswith(s.visual)):
            continue
        number, _, rest = weight.removeprefix(prefix).removesuffix(".weight").partition(".")
        if name.startswith("ms-swift") and ours.startswith("vision"):  # it has Hugging Face's tower as it is
            linear = rest in ("attn.qkv", "attn.proj", "mlp.linear_fc1", "mlp.linear_fc2")
            return f"visual.visual.blocks.{number}.{rest}" if linear else None
        found = next((module for pattern, module in MODULES.items() if fnmatchcase(rest, pattern)), None)
        return f"{ours}{number}.{inner}{found}" if found else None
    return None


def merged(made: Made, scale: float, dtype: torch.dtype | None = None, wide: torch.dtype = torch.float32) -> Tensors:
    """The weights with the adapter, by the rule: product by product in the order of the rank, rounded once.

    Args:
        made: the model.
        scale: alpha / rank.
        dtype: of the weights that change; None: their own.
        wide: what is computed in.
    """
    out = dict(made.hf)
    for weight, module in made.inside.items():
        base, b, a = made.hf[weight], made.hf_b[weight].to(wide), made.a[module].to(wide)
        if base.ndim == 3 and made.config["model_type"] == "qwen3_vl_moe":  # [experts, in, out]
            change = product(b.transpose(1, 2), a).transpose(1, 2)
        else:
            if a.ndim == 3 and base.ndim == 2:  # an expert by itself
                a = a[int(weight.split(".experts.")[1].split(".")[0])]
            change = product(b, a)
        out[weight] = (change * scale + base.to(wide)).to(dtype or base.dtype)
    return out


def product(b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
    """B @ A, term by term."""
    total = b[..., :, 0, None] * a[..., 0, None, :]
    for k in range(1, a.shape[-2]):
        total = total + b[..., :, k, None] * a[..., k, None, :]
    return total
