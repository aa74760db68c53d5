"""`.metadata` that is a good pickle and a lie."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from refusing import edit_metadata
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, MetadataIndex, TensorProperties

from .case import Kind, Work, either, refused
from .files import EMBEDDING, FC1, INPUT_NORM, MLP_NORM, NORM, PROJECTION

METADATA = Kind("metadata", "dist", "moe", every=2)
_KEYS = {
    "dist": (PROJECTION, NORM),
    "fsdp": (
        "model.module.language_model.decoder.layers.1.self_attention.linear_proj.weight",
        "model.module.language_model.decoder.final_layernorm.weight",
    ),
    "plain": ("model.language_model.layers.1.self_attn.o_proj.weight", "model.language_model.norm.weight"),
}
_Change = Callable[[Any, str], object]


def _each(title: str, change: _Change, *says: str, norm: bool = False, bases: tuple[str, ...] = tuple(_KEYS)) -> None:
    """A change of the tables around one tensor, in every distributed format; refused naming `says` or the tensor."""
    for base in bases:
        key = _KEYS[base][1 if norm else 0]
        damage = partial(_edited, partial(_keyed, change, key))
        METADATA.add(title, base, damage, refused(*(says or (_short(key),))))


def _short(key: str) -> str:
    """What every message calls it, layers stacked or not."""
    return key.rpartition("layers.")[2].lstrip("0123456789.") if "layers." in key else key.rpartition("module.")[2]


def _keyed(change: _Change, key: str, value: Any) -> None:
    change(value, key)


def _edited(change: Callable[[Any], object], work: Work) -> None:
    edit_metadata(work.data, change)


def _infos(value: Any, key: str) -> list[Any]:
    pairs = [(tuple(k.offset or ()), i) for k, i in value.storage_data.items() if k.fqn == key]
    return [info for _, info in sorted(pairs, key=lambda pair: pair[0]) if info.length]


def _set_info(value: Any, key: str, **fields: Any) -> None:
    for name, content in fields.items():
        setattr(_infos(value, key)[0], name, content)


def _same_item(value: Any, key: str) -> None:
    """Two chunks of one tensor lie in one item."""
    of_one_size: dict[tuple[int, ...], Any] = {}
    for chunk in value.state_dict_metadata[key].chunks:
        index = next(k for k in value.storage_data if k.fqn == key and tuple(k.offset) == tuple(chunk.offsets))
        first = of_one_size.setdefault(tuple(chunk.sizes), index)
        if first is not index and chunk.sizes[0]:
            value.storage_data[index] = value.storage_data[first]
            return
    raise AssertionError("no two chunks of one size")


def _other_tensors_item(first: str, second: str, value: Any) -> None:
    """A tensor lies where another does, chunk by chunk."""
    theirs = {tuple(k.offset): i for k, i in value.storage_data.items() if k.fqn == second}
    for index in [k for k in value.storage_data if k.fqn == first]:
        value.storage_data[index] = theirs[tuple(index.offset)]


def _overlapping(value: Any, key: str) -> None:
    """An item begins inside another."""
    info = _infos(value, key)[0]
    value.storage_data = {
        k: dataclasses.replace(i, offset=info.offset + 64) if k.fqn != key and i.length == info.length else i
        for k, i in value.storage_data.items()
    }


def _gap(value: Any, key: str) -> None:
    del value.storage_data[next(k for k, i in value.storage_data.items() if k.fqn == key and i.length)]


def _no_chunk(value: Any, key: str) -> None:
    value.state_dict_metadata[key].chunks.pop()


def _twice(value: Any, key: str) -> None:
    chunks = value.state_dict_metadata[key].chunks
    chunks.append(next(c for c in chunks if c.sizes[0]))


def _shifted(value: Any, key: str) -> None:
    """A chunk that overlaps its neighbour, and its place with it."""
    entry = value.state_dict_metadata[key]
    old = [c for c in entry.chunks if all(c.sizes)][-1]
    offsets = list(old.offsets)
    axis = next(a for a, o in enumerate(offsets) if o)
    offsets[axis] -= 1
    entry.chunks[entry.chunks.index(old)] = ChunkStorageMetadata(torch.Size(offsets), old.sizes)
    index = next(k for k in value.storage_data if k.fqn == key and tuple(k.offset) == tuple(old.offsets))
    value.storage_data[MetadataIndex(key, torch.Size(offsets))] = value.storage_data.pop(index)


def _size(size: Any, value: Any, key: str) -> None:
    value.state_dict_metadata[key].size = size(value.state_dict_metadata[key].size)


def _dtype(dtype: torch.dtype, value: Any, key: str) -> None:
    value.state_dict_metadata[key].properties = TensorProperties(dtype=dtype)


def _missing(value: Any, key: str) -> None:
    del value.state_dict_metadata[key]


def _surplus(value: Any, key: str) -> None:
    name = key.replace(".weight", ".surplus")
    value.state_dict_metadata[name] = value.state_dict_metadata[key]
    for index, info in list(value.storage_data.items()):
        if index.fqn == key:
            value.storage_data[MetadataIndex(name, index.offset)] = info


_each("two chunks on one item", _same_item)
_each("a chunk that lies nowhere", _gap)
_each("a chunk too few", _no_chunk)
_each("a chunk twice", _twice)
_each("chunks that overlap", _shifted)
_each("items that overlap", _overlapping, ".distcp", bases=("dist", "plain"))
_each("a tensor less", _missing)
_each("a tensor more", _surplus, "surplus", norm=True)
_each("an offset into the middle", lambda v, k: _set_info(v, k, offset=_infos(v, k)[0].offset + 1))
_each("an offset beyond the file", lambda v, k: _set_info(v, k, offset=1 << 40), ".distcp")
_each("an offset beyond 64 bits", lambda v, k: _set_info(v, k, offset=1 << 64), ".metadata")
_each(
    "an offset and a length that overflow",
    lambda v, k: _set_info(v, k, offset=(1 << 62) - 1, length=(1 << 62) - 1),
    ".distcp",
)
_each("a negative offset", lambda v, k: _set_info(v, k, offset=-1), ".metadata")
_each("a length of nothing", lambda v, k: _set_info(v, k, length=0))
_each("a length of a float", lambda v, k: _set_info(v, k, length=2.5), ".metadata")
_each("a length of the whole file", lambda v, k: _set_info(v, k, offset=0, length=200_000))
_each("a file above", lambda v, k: _set_info(v, k, relative_path="../canary"), "../canary")
_each("a file of the system", lambda v, k: _set_info(v, k, relative_path="/etc/passwd"), "/etc/passwd")
_each("a file in a folder", lambda v, k: _set_info(v, k, relative_path="a/__0_0.distcp"), "a/__0_0.distcp")
_each("a file of no name", lambda v, k: _set_info(v, k, relative_path=""), ".metadata")
_each("a file with a null", lambda v, k: _set_info(v, k, relative_path="a\0b"), ".metadata")
_each("a file that is not there", lambda v, k: _set_info(v, k, relative_path="__9_9.distcp"), "__9_9.distcp")
_each("another file", lambda v, k: _set_info(v, k, relative_path=".metadata"), ".metadata")
_each("a file's name of 100,000 characters", lambda v, k: _set_info(v, k, relative_path="x" * 100_000), "xxx")
_each("a transform", lambda v, k: _set_info(v, k, transform_descriptors=["zstd"]), ".metadata", "transformed")
_each("a shape too narrow", partial(_size, lambda s: torch.Size([*s[:-1], s[-1] - 1])))
_each("a shape too wide", partial(_size, lambda s: torch.Size([*s[:-1], s[-1] + 1])))
_each("a shape of one axis more", partial(_size, lambda s: torch.Size([*s, 1])))
_each("a shape of no element", partial(_size, lambda s: torch.Size([0] * len(s))))
_each("a shape of 2^61", partial(_size, lambda s: torch.Size([1 << 61, *s[1:]])))
_each("a negative shape", partial(_size, lambda s: tuple(-n for n in s)), ".metadata")
_each("a shape of text", partial(_size, lambda s: ("4", "64")), ".metadata")
_each("ten thousand axes", partial(_size, lambda s: torch.Size([2] * 10_000)), norm=True)
_each("a dtype of another width", partial(_dtype, torch.float32))
_each("a dtype of the same width", partial(_dtype, torch.float16))
_each("a dtype of integers", partial(_dtype, torch.int16))
_each("a dtype of float8", partial(_dtype, torch.float8_e4m3fn))
_each("a dtype of complex numbers", partial(_dtype, torch.complex64))


@METADATA.case("dist", refused(".distcp", (INPUT_NORM, MLP_NORM)))
def two_tensors_on_one_item(work: Work) -> None:
    edit_metadata(work.data, partial(_other_tensors_item, INPUT_NORM, MLP_NORM))


@METADATA.case("plain", refused(".distcp", "layernorm"))
def two_tensors_on_one_item_(work: Work) -> None:
    layer = "model.language_model.layers.2"
    names = (f"{layer}.input_layernorm.weight", f"{layer}.post_attention_layernorm.weight")
    edit_metadata(work.data, partial(_other_tensors_item, *names))


@METADATA.case("fsdp", refused(".distcp", "linear_proj.bias"))
def two_tensors_on_one_item__(work: Work) -> None:
    layer = "model.module.vision_model.decoder.layers"
    edit_metadata(
        work.data,
        lambda v: [
            v.storage_data.__setitem__(index, info)
            for index in list(v.storage_data)
            if index.fqn == f"{layer}.1.self_attention.linear_proj.bias"
            for other, info in v.storage_data.items()
            if other.fqn == f"{layer}.2.self_attention.linear_proj.bias"
        ][:1],
    )


@METADATA.case(("dist", "moe"), refused("layers"))
def stacked_layers_on_one_item(work: Work) -> None:
    """Layer 2 is layer 1: sizes, sums and names are right, and the model is another."""

    def change(value: Any) -> None:
        theirs = {tuple(k.offset): i for k, i in value.storage_data.items() if k.fqn == INPUT_NORM}
        for index in [k for k in value.storage_data if k.fqn == INPUT_NORM]:
            value.storage_data[index] = (
                theirs[(1, *index.offset[1:])] if index.offset[0] == 2 else theirs[tuple(index.offset)]
            )

    edit_metadata(work.data, change)


@METADATA.case(("moe", "per_layer"), refused("experts"))
def two_experts_on_one_item(work: Work) -> None:
    def change(value: Any) -> None:
        key = next(k for k in value.state_dict_metadata if ".experts.experts.linear_fc2" in k)
        first: dict[tuple[int, ...], Any] = {}
        for index in [k for k in value.storage_data if k.fqn == key]:
            size = next(
                c.sizes for c in value.state_dict_metadata[key].chunks if tuple(c.offsets) == tuple(index.offset)
            )
            value.storage_data[index] = first.setdefault(tuple(size), value.storage_data[index])

    edit_metadata(work.data, change)


@METADATA.case("dist", refused(".metadata"))
def tables_of_none(work: Work) -> None:
    edit_metadata(work.data, lambda v: setattr(v, "storage_data", None))


@METADATA.case("dist", refused("no weights"))
def tables_of_nothing(work: Work) -> None:
    edit_metadata(work.data, lambda v: (v.state_dict_metadata.clear(), v.storage_data.clear()))


@METADATA.case(("dist", "fsdp"), refused("embedding"))
def a_vocabulary_too_short(work: Work) -> None:
    def change(value: Any) -> None:
        for key, entry in value.state_dict_metadata.items():
            if key.removeprefix("model.module.") == EMBEDDING:
                entry.size = torch.Size([240, 64])
                entry.chunks = [ChunkStorageMetadata(torch.Size([0, 0]), torch.Size([240, 64]))]

    edit_metadata(work.data, change)


@METADATA.case("dist", refused("layers"))
def a_stack_of_another_height(work: Work) -> None:
    def change(value: Any) -> None:
        entry = value.state_dict_metadata[FC1]
        entry.size = torch.Size([5, *entry.size[1:]])

    edit_metadata(work.data, change)


@METADATA.case("dist", refused("nowhere.distcp", "overlap"))
def optimizer_entries_that_lie(work: Work) -> None:
    def change(value: Any) -> None:
        for index, info in value.storage_data.items():
            if index.fqn.startswith("optimizer"):
                info.offset, info.relative_path = 1 << 50, "nowhere.distcp"

    edit_metadata(work.data, change)


@METADATA.case("plain", either(".distcp"))
def chunks_in_another_order(work: Work) -> None:
    edit_metadata(
        work.data, lambda v: [e.chunks.reverse() for e in v.state_dict_metadata.values() if hasattr(e, "chunks")]
    )


@METADATA.case("dist", refused(".metadata"))
def names_that_are_numbers(work: Work) -> None:
    edit_metadata(work.data, lambda v: v.state_dict_metadata.__setitem__(5, v.state_dict_metadata[NORM]))
