"""A tiny language model under megatron-core's names, with Gated DeltaNets and a multi-token-prediction head, and what
each tensor-parallel rank has of it.

Every number is another one. No formula here knows vlconv's.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlconv.converters.formats.opened import Opened
from vlconv.converters.formats.output_file import OutFile
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.layouts.layout import Layout
from vlconv.converters.layouts.shared.splits import split_of
from vlconv.converters.models import MODELS
from vlconv.converters.models.shared.config import TextConfig
from vlconv.converters.tensors.sharding import Split
from vlconv.converters.tensors.spec import Box, TensorSpec

Tensors = dict[str, Tensor]

LAYERS, HIDDEN, VOCAB = 4, 6, 16
KEYS, VALUES, HEADS = 8, 24, 8  # four key heads of two rows, eight value heads of three
IN_PROJ, CONV1D = (KEYS, KEYS, VALUES, VALUES, HEADS, HEADS), (KEYS, KEYS, VALUES)
PIECES = ("query", "key", "value", "z", "beta", "alpha")

TEXT = TextConfig(
    layers=LAYERS, hidden=HIDDEN, heads=4, groups=4, head_dim=2, ffn=8, vocab=VOCAB, tied=False,
    linear_layers=frozenset({0, 1, 2}), key_heads=4, value_heads=8, key_dim=2, value_dim=3, kernel=4, mtp=1,
)  # fmt: skip

GDN = {
    "self_attention.in_proj.weight": (sum(IN_PROJ), HIDDEN),
    "self_attention.in_proj.layer_norm_weight": (HIDDEN,),
    "self_attention.conv1d.weight": (sum(CONV1D), 1, 4),
    "self_attention.A_log": (HEADS,),
    "self_attention.dt_bias": (HEADS,),
    "self_attention.out_norm.weight": (3,),
    "self_attention.out_proj.weight": (HIDDEN, VALUES),
}
ATTENTION = {
    "self_attention.linear_qkv.weight": (32, HIDDEN),
    "self_attention.linear_qkv.layer_norm_weight": (HIDDEN,),
    "self_attention.linear_proj.weight": (HIDDEN, 8),
}
MLP = {"mlp.linear_fc1.weight": (16, HIDDEN), "mlp.linear_fc2.weight": (HIDDEN, 8)}
SHARED = {
    "mlp.shared_experts.linear_fc1.weight": (16, HIDDEN),
    "mlp.shared_experts.linear_fc2.weight": (HIDDEN, 8),
    "mlp.shared_experts.gate_weight": (1, HIDDEN),
}
HEAD = {"enorm.weight": (HIDDEN,), "hnorm.weight": (HIDDEN,), "eh_proj.weight": (8, 2 * HIDDEN)}


def model(m: str = "language_model.", inner: str = "transformer_layer", mtp: bool = True) -> Tensors:
    """The whole model; `inner` is what the layer inside the multi-token-prediction head is called."""
    shapes: dict[str, tuple[int, ...]] = {f"{m}embedding.word_embeddings.weight": (VOCAB, HIDDEN)}
    for i in range(LAYERS):
        parts = (GDN if i < LAYERS - 1 else ATTENTION) | MLP | (SHARED if i == 1 else {})
        shapes |= {f"{m}decoder.layers.{i}.{name}": shape for name, shape in parts.items()}
    shapes[f"{m}decoder.final_layernorm.weight"] = (HIDDEN,)
    shapes[f"{m}output_layer.weight"] = (VOCAB, HIDDEN)
    if mtp:
        shapes |= {f"{m}mtp.layers.0.{name}": shape for name, shape in HEAD.items()}
        shapes |= {f"{m}mtp.layers.0.{inner}.{name}": shape for name, shape in (ATTENTION | MLP).items()}
        shapes[f"{m}mtp.layers.0.final_layernorm.weight"] = (HIDDEN,)
    first, made = 0, {}
    for name, shape in shapes.items():
        made[name] = torch.arange(first, first + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)
        first += made[name].numel()
    return made


def part(name: str, whole: Tensor, ranks: int, rank: int) -> Tensor:
    """What one tensor-parallel rank of a megatron-core model has of a tensor."""
    sections = [IN_PROJ, CONV1D, (8, 8)]
    for ends, sizes in zip(["in_proj.weight", "conv1d.weight", "linear_fc1.weight"], sections, strict=True):
        if name.endswith(ends):
            return torch.cat([section.chunk(ranks)[rank] for section in whole.split(sizes)]).clone()
    if name.endswith(
        ("A_log", "dt_bias", "linear_qkv.weight", "eh_proj.weight", "embeddings.weight", "put_layer.weight")
    ):
        return whole.chunk(ranks)[rank].clone()
    if name.endswith(("out_proj.weight", "linear_proj.weight", "linear_fc2.weight")):
        return whole.chunk(ranks, dim=1)[rank].clone()
    return whole.clone()


def splits(
    names: Iterable[str], layout: Layout = LAYOUTS["mbridge"], text: TextConfig | None = TEXT
) -> dict[str, Split]:
    """How each is cut."""
    return {name: split_of(name, layout, MODELS["qwen3_vl"].traits, text) for name in names}


def specs(tensors: Mapping[str, Tensor]) -> dict[str, TensorSpec]:
    return {name: TensorSpec(name, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()}


def read(opened: Opened, cut: Mapping[str, Split]) -> Tensors:
    """Every wanted tensor, whole."""
    reader, found = opened.assemble(cut), {}
    reader.check_tiling()
    for name in cut:
        spec = reader.specs[name]
        found[name] = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype))
        reader.read_into(Box(name, (0,) * len(spec.shape), spec.shape), found[name].numpy())
    reader.finish()
    return found


def write(directory: Path, files: Iterable[OutFile], tensors: Mapping[str, Tensor]) -> Path:
    """Write planned files, box by box."""
    for file in files:
        data, sums = bytearray(file.size), []
        for piece in file.pieces:
            box = tensors[piece.box.name][tuple(slice(o, o + n) for o, n in zip(*piece.box[1:], strict=True))]
            found = box.contiguous().numpy().tobytes()
            data[piece.offset : piece.offset + len(found)] = found
            sums.append(zlib.crc32(found))
        for offset, literal in [*file.literals, *(file.seal(sums) if file.seal else [])]:
            data[offset : offset + len(literal)] = literal
        (directory / file.name).parent.mkdir(parents=True, exist_ok=True)
        (directory / file.name).write_bytes(data)
    return directory


def same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Names that differ, in number, shape, dtype or value."""
    return sorted(
        name
        for name in found.keys() | wanted.keys()
        if name not in found
        or name not in wanted
        or found[name].dtype != wanted[name].dtype
        or not torch.equal(found[name], wanted[name])
    )
