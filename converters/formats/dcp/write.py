"""torch_dist: Megatron-core's distributed checkpoint, planned.

Topology-free: one chunk per layer or less, so that any number of ranks loads it. Items are torch.save zips of known
size; their sums are filled in
when the data is written.
"""

from __future__ import annotations

import io
import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Box, Shape, TensorSpec
from ...tensors.tiling import cut
from ..output_file import OutFile, Piece
from ..zips.items import ItemParts, bytes_item, item_parts
from .unfold import HEADS, Key, alike, cut_in_pieces, split, stack

if TYPE_CHECKING:
    from torch.distributed.checkpoint.metadata import Metadata

CHUNK = 256 << 20
"""Bytes of the largest chunk: small enough to load in parallel, large enough that `.metadata` stays small."""

FILE = 2 << 30
"""Bytes after which a new `.distcp` file begins."""

VERSION = "1.0.0"
"""What torch's own writer states as the version of `.metadata`."""


ATTENTION = ".self_attention.linear_qkv"


class _Item(NamedTuple):
    key: str
    offsets: Shape  # of the chunk in the key
    box: Box  # the same in a canonical tensor
    file: int
    offset: int  # of the item in its file
    parts: ItemParts


class _Bytes(NamedTuple):
    key: str
    file: int
    offset: int
    data: bytes


@dataclass(slots=True)
class _Plan:
    keys: list[Key]
    items: list[_Item] = field(default_factory=list)
    extra: list[_Bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=lambda: [0])
    limit: int = FILE

    def room(self, nbytes: int) -> tuple[int, int]:
        """The file and offset of the next item."""
        if self.sizes[-1] and self.sizes[-1] + nbytes > self.limit:
            self.sizes.append(0)
        self.sizes[-1] += nbytes
        return len(self.sizes) - 1, self.sizes[-1] - nbytes


def plan_torch_dist(
    specs: Mapping[str, TensorSpec],
    lists: Sequence[str],
    extra_state: Iterable[str],
    iteration: int,
    args: Mapping[str, Any] | None = None,
    sections: Mapping[str, Sequence[int]] | None = None,
) -> list[OutFile]:
    """The files of a checkpoint directory.

    Args:
        specs: canonical tensors.
        lists: module lists to stack (see keys.LISTS), () for one key per layer. One whose layers are not alike is keyed
            per layer, as Megatron-core does.
        extra_state: canonical modules with an `_extra_state` entry, without which a Transformer Engine model refuses to
            load.
        iteration: what common.pt states.
        args: Megatron's, for a trainer that asks common.pt for them.
        sections: canonical tensors to write in pieces, each as a key of its own (keys.SECTIONS), and how the sizes of
            these compare.

    Raises:
        MismatchError: layers that are to be stacked differ, or a tensor has other rows than its sections.
    """
    per_layer = not lists
    lists = alike(specs, lists)
    # At least eight files of a large model, so that as many can be loaded side by side.
    keys = list(cut_in_pieces(stack(specs, lists), sections or {}))
    plan = _Plan(keys, limit=min(FILE, max(CHUNK, sum(spec.nbytes for spec in specs.values()) // 8)))
    for key in plan.keys:
        for at, name in enumerate(key.parts):
            _chunks(plan, key, at, specs[name])
    for name in _extra_names(extra_state, specs, lists):
        data = bytes_item()
        plan.extra.append(_Bytes(name, *plan.room(len(data)), data))
    return [*_data_files(plan), *_side_files(plan, per_layer=per_layer, iteration=iteration, args=args)]


def _chunks(plan: _Plan, key: Key, at: int, spec: TensorSpec) -> None:
    """Cut one canonical tensor, or the piece of it that the key is, into chunks of its key."""
    begin = (key.first, *(0 for _ in spec.shape[1:]))[: len(spec.shape)]
    for box, _ in cut(Box(spec.name, begin, key.shape[key.stacked :]), 0, ITEMSIZE[spec.dtype], CHUNK):
        lead = ((at,), (1,)) if key.stacked else ((), ())
        parts = item_parts(spec.dtype, lead[1] + box.lengths)
        offsets = tuple(o - b for o, b in zip(box.offsets, begin, strict=True))
        plan.items.append(_Item(key.name, lead[0] + offsets, box, *plan.room(parts.nbytes), parts))


def _extra_names(modules: Iterable[str], specs: Mapping[str, TensorSpec], lists: Sequence[str]) -> Iterator[str]:
    """Keys of byte entries.

    `X._extra_state/shard_{place}_{extent}`, place and extent over the stacked axis and the experts.
    """
    listed = [(module, split(f"{module}.", lists)) for module in _with_cores(modules)]
    counts: dict[str, int] = {}
    for _, where in listed:
        if where is not None:
            counts[where[0]] = max(counts.get(where[0], 0), where[1] + 1)
    for module, where in listed:
        base, place, extent = module, [0], [1]
        if where is not None:
            base, place, extent = where[0].rstrip("."), [where[1]], [counts[where[0]]]
        experts = specs[f"{module}.weight"].shape[0] if ".experts.experts." in module else 0
        if not experts:
            yield f"{base}._extra_state/shard_{_dots(place)}_{_dots(extent)}"
        lead = (place, extent) if where is not None else ([], [])
        for e in range(experts):
            yield f"{base}._extra_state/shard_{_dots([*lead[0], e])}_{_dots([*lead[1], experts])}"


def _with_cores(modules: Iterable[str]) -> Iterator[str]:
    """The modules, and the attention cores of multi-token-prediction heads.

    megatron-core 0.16 lists the entries of such a head twice, the second time without its rules: it asks for the
    core's, too, of which it has none in the decoder. Later versions do not, and pass over an entry more.
    """
    for module in modules:
        yield module
        if f".{HEADS}" in f".{module}" and module.endswith(ATTENTION):
            yield f"{module.removesuffix(ATTENTION)}.self_attention.core_attention"


def _dots(numbers: Iterable[int]) -> str:
    return ".".join(map(str, numbers))


def _file_name(number: int) -> str:
    return f"__0_{number}.distcp"


def _data_files(plan: _Plan) -> Iterator[OutFile]:
    for number, size in enumerate(plan.sizes):
        items = [item for item in plan.items if item.file == number]
        pieces = [Piece(item.box, item.offset + item.parts.data_offset) for item in items]
        literals = [(entry.offset, entry.data) for entry in plan.extra if entry.file == number]
        yield OutFile(_file_name(number), size, pieces, literals, _sealer(items))


def _sealer(items: Sequence[_Item]) -> Callable[[Sequence[int]], Iterator[tuple[int, bytes]]]:
    def seal(sums: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        for item, crc in zip(items, sums, strict=True):
            head, tail = item.parts.head(crc), item.parts.tail(crc)
            yield item.offset, head
            yield item.offset + item.parts.nbytes - len(tail), tail

    return seal


def _side_files(plan: _Plan, *, per_layer: bool, iteration: int, args: Mapping[str, Any] | None) -> Iterator[OutFile]:
    """.metadata, metadata.json and common.pt."""
    backend = {
        "sharded_backend": "torch_dist",
        "sharded_backend_version": 1,
        "common_backend": "torch",
        "common_backend_version": 1,
    }
    content: dict[str, Any] = {"singleton_local_shards": False, "chained_optim_avoid_prefix": True}
    if per_layer:
        content["non_homogeneous_layers"] = True
    common = {"content_metadata": content, "checkpoint_version": 3.0, "iteration": iteration}
    if args:
        common["args"] = Namespace(**args)
    for name, data in (
        ("common.pt", _saved(common)),
        (".metadata", _pickled(_metadata(plan))),
        ("metadata.json", json.dumps(backend).encode()),
    ):
        yield OutFile(name, len(data), literals=[(0, data)])


def _saved(tree: object) -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save(tree, buffer)
    return buffer.getvalue()


def _pickled(metadata: Metadata) -> bytes:
    import pickle

    return pickle.dumps(metadata)


def _metadata(plan: _Plan) -> Metadata:
    """DCP's own records, so that its reader takes them for its own.

    But for what torch's writer says of the run that saved (its path and a random id): the same input gives the same
    bytes.
    """
    import torch
    from torch.distributed.checkpoint import metadata as dcp
    from torch.distributed.checkpoint.filesystem import _StorageInfo

    chunks: dict[str, list[dcp.ChunkStorageMetadata]] = {}
    storage: dict[dcp.MetadataIndex, _StorageInfo] = {}
    for item in plan.items:
        offsets, listed = torch.Size(item.offsets), chunks.setdefault(item.key, [])
        storage[dcp.MetadataIndex(item.key, offsets, len(listed))] = _StorageInfo(
            _file_name(item.file), item.offset, item.parts.nbytes
        )
        listed.append(dcp.ChunkStorageMetadata(offsets, torch.Size(item.parts.shape)))
    tensors: dict[str, Any] = {
        key.name: dcp.TensorStorageMetadata(
            dcp.TensorProperties(dtype=getattr(torch, key.dtype)), torch.Size(key.shape), chunks[key.name]
        )
        for key in plan.keys
    }
    for entry in plan.extra:
        tensors[entry.key] = dcp.BytesStorageMetadata()
        storage[dcp.MetadataIndex(entry.key)] = _StorageInfo(_file_name(entry.file), entry.offset, len(entry.data))
    metadata = dcp.Metadata(state_dict_metadata=tensors, storage_data=storage, storage_meta=dcp.StorageMeta())
    metadata.version = VERSION  # an older torch has no such field, and no harm is done by an attribute more
    return metadata
