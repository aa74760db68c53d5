"""Megatron-Bridge's CanonicalLoRA: q, k, v and gate, up have adapters of their own, in Hugging Face's order of rows."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from .making import Made, Tensors, product, random
from .making import merged as merged_whole
from .saving import Shard, of_bridge

SUFFIX = {"q_proj": "q", "k_proj": "k", "v_proj": "v", "gate_proj": "gate", "up_proj": "up"}


class Part(NamedTuple):
    """One adapter: of a part of Megatron's module, which is some rows of a Hugging Face weight."""

    module: str
    part: str
    weight: str
    first: int
    a: Tensor
    b: Tensor


def parts_of(made: Made) -> list[Part]:
    """The adapters of all fused modules, every one with another A."""
    found = []
    for weight, module in made.inside.items():
        b, a = made.hf_b[weight], made.a[module]
        name = SUFFIX.get(weight.split(".")[-2], "")
        pieces = {name: b} if name else {}
        if weight.endswith("attn.qkv.weight"):  # of a vision tower: all three in one weight
            pieces = dict(zip("qkv", b.chunk(3), strict=True))
        for at, (part, rows) in enumerate(pieces.items()):
            own = random(f"{weight} {part}", tuple(a.shape), a.shape[-1] ** -0.5)
            found.append(Part(module, part, weight, at * len(rows), own, rows))
    return found


def shards(made: Made, parts: list[Part], rank: int, ranks: int) -> list[Shard]:
    """What a rank saves."""
    fused = {part.module for part in parts}
    found = [s for s in of_bridge(made, rank, ranks) if s.key.partition(".adapter.")[0] not in fused]
    for module, part, _, _, a, b in parts:
        key, cut = f"{module}.adapter.adapter_{part}", ((0, rank, ranks),)
        found.append(Shard(f"{key}.linear_in.weight", a.chunk(ranks)[rank], cut))
        halved = part in ("gate", "up")
        found.append(Shard(f"{key}.linear_out.weight", b.chunk(ranks)[rank], cut, halved=halved))
    return found


def merged(made: Made, parts: list[Part], scale: float) -> Tensors:
    """What they make of the weights."""
    out = merged_whole(made, scale)
    for weight in {part.weight for part in parts}:
        out[weight] = made.hf[weight].clone()
    for part in parts:
        rows = slice(part.first, part.first + len(part.b))
        base = made.hf[part.weight][rows].float()
        out[part.weight][rows] = (product(part.b.float(), part.a.float()) * scale + base).bfloat16()
    return out
