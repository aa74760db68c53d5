"""What faulty tools make of good weights: written after the tools, in torch, and knowing nothing of the diagnosis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

Tensors = dict[str, Tensor]
Config = dict[str, Any]


class Corruption(NamedTuple):
    """One kind of damage.

    Attributes:
        model: whose weights are damaged.
        spoil: (tensors, text_config or all of a flat config, vision_config) -> the tensors that come out otherwise.
        named: what it is to be called.
        text: fields of the text config.
    """

    model: str
    spoil: Callable[[Tensors, Config, Config], Tensors]
    named: str
    text: tuple[tuple[str, Any], ...] = ()


def ending(hf: Tensors, end: str, among: str = "") -> dict[str, str]:
    """Stem -> name of all tensors that end so."""
    return {name.removesuffix(end): name for name in hf if name.endswith(end) and among in name}


# --- attention


def attention(hf: Tensors, spoil: Callable[..., tuple[Tensor, Tensor, Tensor]], kind: str = "weight") -> Tensors:
    out: Tensors = {}
    for stem in ending(hf, f"q_proj.{kind}"):
        names = [f"{stem}{part}_proj.{kind}" for part in "qkv"]
        out |= dict(zip(names, spoil(*(hf[name] for name in names)), strict=True))
    return out


def split_like(fused: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
    return fused.split([len(part) for part in parts])


def fused_by(q: Tensor, k: Tensor, v: Tensor, pieces: int) -> Tensor:
    """[q | k | v] piece by piece."""
    return torch.cat([torch.cat(part) for part in zip(q.chunk(pieces), k.chunk(pieces), v.chunk(pieces), strict=True)])


def never_deinterleaved(pieces: int) -> Callable[..., Any]:
    """The fused tensor is cut at the sizes of q, k and v, as if it were one behind the other."""
    return lambda q, k, v: split_like(fused_by(q, k, v, pieces), q, k, v)


def deinterleaved_once_too_often(pieces: int) -> Callable[..., Any]:
    def spoil(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, ...]:
        groups = torch.cat([q, k, v]).chunk(pieces)
        sizes = [len(part) // pieces for part in (q, k, v)]
        return tuple(torch.cat(parts) for parts in zip(*(group.split(sizes) for group in groups), strict=True))

    return spoil


def gates(groups: int, head: int, *, swift: bool) -> Callable[..., Any]:
    """Queries and gates of a group in one trainer's order, read in the other's."""

    def spoil(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads = len(q) // groups // head // 2
        shape = (groups, 2, heads, head, -1) if swift else (groups, heads, 2, head, -1)
        return q.reshape(shape).transpose(1, 2).reshape(q.shape), k, v

    return spoil


def only_q(spoiled: Tensors) -> Tensors:
    return {name: tensor for name, tensor in spoiled.items() if ".q_proj." in name}


def vision_qkv(pieces: int) -> Callable[..., Tensors]:
    """Per rank (or head) [q | k | v], concatenated: Pai-Megatron-Patch's export of more than one rank."""

    def spoil(hf: Tensors, text: Config, vision: Config) -> Tensors:
        names = [name for name in hf if ".attn.qkv." in name]
        return {name: fused_by(*hf[name].chunk(3), pieces) for name in names}

    return spoil


# --- MLPs


def mlp(spoil: Callable[[Tensor, Tensor], tuple[Tensor, ...]]) -> Callable[..., Tensors]:
    def spoiled(hf: Tensors, text: Config, vision: Config) -> Tensors:
        out: Tensors = {}
        for stem in ending(hf, "gate_proj.weight", ".mlp."):
            names = [f"{stem}gate_proj.weight", f"{stem}up_proj.weight"]
            out |= dict(zip(names, spoil(*(hf[name] for name in names)), strict=True))
        return out

    return spoiled


def ranks_of_gate_up(ranks: int) -> Callable[..., Any]:
    """fc1 of each rank is [gate; up]; the ranks are put together, and the whole is cut in the middle."""
    return lambda gate, up: tuple(
        torch.cat([torch.cat(pair) for pair in zip(gate.chunk(ranks), up.chunk(ranks), strict=True)]).chunk(2)
    )


# --- experts


def packed(spoil: Callable[[Tensor], Tensor], end: str = "gate_up_proj") -> Callable[..., Tensors]:
    def spoiled(hf: Tensors, text: Config, vision: Config) -> Tensors:
        names = ending(hf, f".mlp.experts.{end}", "layers").values()
        return {name: spoil(hf[name]) for name in names if not name.startswith("mtp.")}

    return spoiled


def swapped(axis: int) -> Callable[[Tensor], Tensor]:
    return lambda fused: torch.cat(fused.chunk(2, axis)[::-1], axis)


def ranks_of_experts(ranks: int, axis: int) -> Callable[[Tensor], Tensor]:
    def spoil(fused: Tensor) -> Tensor:
        gate, up = fused.chunk(2, axis)
        pairs = zip(gate.chunk(ranks, axis), up.chunk(ranks, axis), strict=True)
        return torch.cat([torch.cat(pair, axis) for pair in pairs], axis)

    return spoil


def reordered(places: Callable[[int], list[int]]) -> Callable[..., Tensors]:
    """Experts are written where others belong, in whatever form."""

    def spoil(hf: Tensors, text: Config, vision: Config) -> Tensors:
        order = places(text["num_experts"])
        both = packed(lambda t: t[order])(hf, text, vision) | packed(lambda t: t[order], "down_proj")(hf, text, vision)
        if both:
            return both
        out: Tensors = {}
        for name in hf:
            stem, found, rest = name.partition(".mlp.experts.")
            if found and not name.startswith("mtp."):
                number, _, part = rest.partition(".")
                out[name] = hf[f"{stem}.mlp.experts.{order[int(number)]}.{part}"]
        return out

    return spoil


def only_reshaped(fused: Tensor) -> Tensor:
    return fused.transpose(1, 2).contiguous().view(fused.shape)


# --- Gated DeltaNets


def delta_net(ranks: int, names: tuple[str, ...]) -> Callable[..., Tensors]:
    """Each rank's part of in_proj is its queries, keys, values, z, beta, alpha; the ranks are put together."""

    def spoil(hf: Tensors, text: Config, vision: Config) -> Tensors:
        keys = text["linear_num_key_heads"] * text["linear_key_head_dim"]
        out: Tensors = {}
        for stem in ending(hf, names[0]):
            whole = [hf[stem + name] for name in names]
            values = len(whole[0]) - 2 * keys
            parts = [*whole[0].split([keys, keys, values]), *whole[1:]]
            fused = torch.cat([torch.cat(of_rank) for of_rank in zip(*(p.chunk(ranks) for p in parts), strict=True)])
            out |= dict(zip([stem + name for name in names], split_like(fused, *whole), strict=True))
        return out

    return spoil


IN_PROJ = tuple(f"linear_attn.in_proj_{part}.weight" for part in ("qkv", "z", "b", "a"))


# --- numbers


def each(end: str, spoil: Callable[[Tensor], Tensor]) -> Callable[..., Tensors]:
    return lambda hf, text, vision: {name: spoil(hf[name]) for name in ending(hf, end).values()}


def like(tensor: Tensor, seed: int = 1) -> Tensor:
    """Noise of the same size."""
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(seed))
    return (noise * tensor.float().std()).to(tensor.dtype)


def trained(amount: float) -> Callable[[Tensor], Tensor]:
    """Every number a little off, by so much of what they scatter."""

    def spoil(tensor: Tensor) -> Tensor:
        noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(7))
        return (tensor.float() + amount * tensor.float().std() * noise).to(tensor.dtype)

    return spoil


def shard(rank: int, ranks: int, axis: int = 0) -> Callable[[Tensor], Tensor]:
    """One rank's part is of another iteration."""

    def spoil(tensor: Tensor) -> Tensor:
        parts = list(tensor.chunk(ranks, axis))
        parts[rank] = (parts[rank].float() * 1.01 + 0.01).to(tensor.dtype)
        return torch.cat(parts, axis)

    return spoil


def shuffled_in(parts: int) -> Callable[[Tensor], Tensor]:
    def spoil(tensor: Tensor) -> Tensor:
        generator = torch.Generator().manual_seed(3)
        return torch.cat([part[torch.randperm(len(part), generator=generator)] for part in tensor.chunk(parts)])

    return spoil


def a_layer_late(hf: Tensors, text: Config, vision: Config) -> Tensors:
    name = "model.language_model.layers.{}.mlp.down_proj.weight"
    return {name.format(i): hf[name.format(i - 1)] for i in range(1, text["num_hidden_layers"])}


def as_if_tied(hf: Tensors, text: Config, vision: Config) -> Tensors:
    return {"lm_head.weight": hf["model.language_model.embed_tokens.weight"]}


def text_numbers(experts: int) -> list[int]:
    return [int(word) for word in sorted(map(str, range(experts)))]


def round_robin(ranks: int) -> Callable[[int], list[int]]:
    return lambda experts: torch.arange(experts).view(-1, ranks).t().reshape(-1).tolist()


def rank_by_rank(ranks: int) -> Callable[[int], list[int]]:
    return lambda experts: torch.arange(experts).view(ranks, -1).t().reshape(-1).tolist()


DOWN = "layers.1.mlp.down_proj.weight"
TWELVE = (("num_experts", 12),)

CORRUPTIONS: dict[str, Corruption] = {
    "QKV not de-interleaved": Corruption(
        "qwen3_vl", lambda hf, t, v: attention(hf, never_deinterleaved(4)), "qkv-groups-as-flat"
    ),
    "QKV not de-interleaved, biases": Corruption(
        "qwen2_5_vl",
        lambda hf, t, v: attention(hf, never_deinterleaved(4)) | attention(hf, never_deinterleaved(4), "bias"),
        "qkv-groups-as-flat",
    ),
    "QKV not interleaved": Corruption(
        "qwen3_vl", lambda hf, t, v: attention(hf, deinterleaved_once_too_often(4)), "qkv-flat-as-groups"
    ),
    "QKV per rank, TP 2": Corruption(
        "qwen3_vl", lambda hf, t, v: attention(hf, never_deinterleaved(2)), "qkv-tp2-as-flat"
    ),
    "QKV per rank, TP 4": Corruption(
        "qwen3", lambda hf, t, v: attention(hf, never_deinterleaved(4)), "qkv-tp4-as-flat"
    ),
    "QKV per rank, TP 8": Corruption(
        "qwen3_vl", lambda hf, t, v: attention(hf, never_deinterleaved(8)), "qkv-tp8-as-flat"
    ),
    "QKV flat, read per rank": Corruption(
        "qwen3_vl", lambda hf, t, v: attention(hf, deinterleaved_once_too_often(2)), "qkv-flat-as-tp2"
    ),
    "gated: ms-swift's for Megatron-core's": Corruption(
        "qwen3_5", lambda hf, t, v: only_q(attention(hf, gates(2, 32, swift=True))), "qkv-groups-as-core"
    ),
    "gated: Megatron-core's for ms-swift's": Corruption(
        "qwen3_5", lambda hf, t, v: only_q(attention(hf, gates(2, 32, swift=False))), "qkv-core-as-groups"
    ),
    "gated: QKV not de-interleaved": Corruption(
        "qwen3_5", lambda hf, t, v: attention(hf, never_deinterleaved(2)), "qkv-groups-as-flat"
    ),
    "vision QKV per rank, TP 2 (Pai)": Corruption("qwen3_vl", vision_qkv(2), "vision-qkv-tp2-as-flat"),
    "vision QKV not de-interleaved": Corruption("qwen3_vl", vision_qkv(4), "vision-qkv-groups-as-flat"),
    "vision QKV per rank, TP 2, Qwen2.5": Corruption("qwen2_5_vl", vision_qkv(2), "vision-qkv-tp2-as-flat"),
    "gate and up swapped": Corruption("qwen3", mlp(lambda gate, up: (up, gate)), "gate-up-swapped"),
    "gate and up per rank, TP 2": Corruption("qwen3", mlp(ranks_of_gate_up(2)), "gate-up-tp2-as-flat"),
    "gate and up per rank, TP 4": Corruption("qwen3", mlp(ranks_of_gate_up(4)), "gate-up-tp4-as-flat"),
    "gate and up per rank, TP 8": Corruption("qwen3", mlp(ranks_of_gate_up(8)), "gate-up-tp8-as-flat"),
    "experts: gate and up swapped": Corruption("qwen3_vl_moe", packed(swapped(2)), "experts-swapped"),
    "experts: gate and up swapped, packed": Corruption("qwen3_5_moe", packed(swapped(1)), "experts-swapped"),
    "experts: gate and up per rank, TP 2": Corruption(
        "qwen3_vl_moe", packed(ranks_of_experts(2, 2)), "experts-tp2-as-flat"
    ),
    "experts: gate and up per rank, TP 4": Corruption(
        "qwen3_5_moe", packed(ranks_of_experts(4, 1)), "experts-tp4-as-flat"
    ),
    "experts dealt round robin, EP 4": Corruption("qwen3_vl_moe", reordered(round_robin(4)), "experts-dealt-4", TWELVE),
    "experts: the first of each rank, EP 4": Corruption(
        "qwen3_moe", reordered(rank_by_rank(4)), "experts-gathered-4", TWELVE
    ),
    "experts sorted as text": Corruption("qwen3_moe", reordered(text_numbers), "experts-as-text", TWELVE),
    "experts not transposed": Corruption("qwen3_vl_moe", packed(only_reshaped), "experts-untransposed"),
    "experts not transposed, down": Corruption(
        "qwen3_vl_moe", packed(only_reshaped, "down_proj"), "experts-untransposed"
    ),
    "GDN in_proj per rank, TP 2": Corruption("qwen3_5", delta_net(2, IN_PROJ), "gdn-tp2-as-flat"),
    "GDN in_proj not de-interleaved": Corruption("qwen3_5", delta_net(4, IN_PROJ), "gdn-groups-as-flat"),
    "GDN q, k, v per rank, TP 2": Corruption("qwen3_5", delta_net(2, IN_PROJ[:1]), "gdn-qkv-tp2-as-flat"),
    "GDN convolution per rank, TP 2": Corruption(
        "qwen3_5", delta_net(2, ("linear_attn.conv1d.weight",)), "gdn-conv-tp2-as-flat"
    ),
    "a square matrix transposed": Corruption(
        "qwen3_vl", each(".attn.proj.weight", lambda t: t.t().contiguous()), "transposed"
    ),
    "out_norm one too small": Corruption("qwen3_5", each("linear_attn.norm.weight", lambda t: t - 1), "arithmetic"),
    "out_norm one too large": Corruption("qwen3_5", each("linear_attn.norm.weight", lambda t: t + 1), "arithmetic"),
    "zeros": Corruption("qwen3_vl", each("up_proj.weight", torch.zeros_like), "arithmetic"),
    "ones": Corruption("qwen3_vl", each("q_norm.weight", torch.ones_like), "arithmetic"),
    "times one half": Corruption("qwen3_vl", each(DOWN, lambda t: t * 0.5), "arithmetic"),
    "times 1/sqrt(3)": Corruption("qwen3_vl", each(DOWN, lambda t: t * 3**-0.5), "arithmetic"),
    "negative": Corruption("qwen3_vl", each(DOWN, lambda t: -t), "arithmetic"),
    "a layer late": Corruption("qwen3_vl", a_layer_late, "another tensor"),
    "as if tied": Corruption("qwen3_vl", as_if_tied, "another tensor"),
    "rows shuffled": Corruption("qwen3_vl", each(DOWN, shuffled_in(1)), "moved"),
    "rows shuffled within a shard": Corruption("qwen3_vl", each(DOWN, shuffled_in(2)), "moved"),
    "a shard of another iteration": Corruption("qwen3_vl", each("q_proj.weight", shard(1, 2)), "block"),
    "a shard of columns": Corruption("qwen3_vl", each("o_proj.weight", shard(0, 4, 1)), "block"),
    "trained a little": Corruption("qwen3_vl", each("_proj.weight", trained(0.01)), "trained"),
    "trained much": Corruption("qwen3_vl", each("_proj.weight", trained(0.1)), "trained"),
    "trained, hybrid": Corruption("qwen3_5_moe", each("_proj.weight", trained(0.03)), "trained"),
    "noise": Corruption("qwen3_vl", each("_proj.weight", like), "unrelated"),
    "noise, experts": Corruption("qwen3_vl_moe", each("_proj", like), "unrelated"),
    "noise, hybrid": Corruption("qwen3_5", each("in_proj_qkv.weight", like), "unrelated"),
}
