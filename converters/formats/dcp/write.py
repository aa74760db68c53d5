"""torch_dist: Megatron-core's distributed checkpoint, planned.

Topology-free: one chunk per layer or less, so that any number of ranks loads it. Items are torch.save zips of known
size; their sums are filled in
when the data is written.
"""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Box, TensorSpec
from ...tensors.tiling import cut
from ..output_file import OutFile, Piece, small_file
from ..pickles.dcp_pickle import Place, StoredBytes, StoredChunk, StoredKey, dcp_pickle
from ..pickles.plain_pickle import plain_pickle
from ..zips.items import ItemParts, bytes_item, item_parts, saved
from .unfold import HEADS, Key, alike, cut_in_pieces, split, stack

CHUNK = 256 << 20
"""Bytes of the largest chunk: small enough to load in parallel, large enough that `.metadata` stays small."""

FILE = 2 << 30
"""Bytes after which a new `.distcp` file begins."""

VERSION = "1.0.0"
"""What torch's own writer states as the version of `.metadata`."""


ATTENTION = ".self_attention.linear_qkv"


class _Item(NamedTuple):
    chunk: StoredChunk
    box: Box  # the same in a canonical tensor
    parts: ItemParts


@dataclass(slots=True)
class _File:
    name: str
    size: int = 0
    items: list[_Item] = field(default_factory=list)
    entries: list[tuple[int, bytes]] = field(default_factory=list)  # items that are no tensors, and where each begins


@dataclass(slots=True)
class _Plan:
    limit: int  # bytes after which a new file begins
    keys: list[StoredKey] = field(default_factory=list)
    entries: list[StoredBytes] = field(default_factory=list)
    files: list[_File] = field(default_factory=list)

    def room(self, nbytes: int) -> Place:
        """Where the next item goes: behind those of the last file, if that is not full."""
        if not self.files or (self.files[-1].size and self.files[-1].size + nbytes > self.limit):
            self.files.append(_File(f"__0_{len(self.files)}.distcp"))
        file = self.files[-1]
        file.size += nbytes
        return Place(file.name, file.size - nbytes, nbytes)


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
    plan = _Plan(min(FILE, max(CHUNK, sum(spec.nbytes for spec in specs.values()) // 8)))
    for key in cut_in_pieces(stack(specs, lists), sections or {}):
        chunks = [chunk for at, name in enumerate(key.parts) for chunk in _chunks(plan, key, at, specs[name])]
        plan.keys.append(StoredKey(key.name, key.dtype, key.shape, chunks))
    for name in _extra_names(extra_state, specs, lists):
        data = bytes_item()
        place = plan.room(len(data))
        plan.files[-1].entries.append((place.offset, data))
        plan.entries.append(StoredBytes(name, place))
    return [*_data_files(plan), *_side_files(plan, per_layer=per_layer, iteration=iteration, args=args)]


def _chunks(plan: _Plan, key: Key, at: int, spec: TensorSpec) -> Iterator[StoredChunk]:
    """Cut one canonical tensor, or the piece of it that the key is, into chunks of its key, and find them room."""
    begin = (key.first, *(0 for _ in spec.shape[1:]))[: len(spec.shape)]
    lead = ((at,), (1,)) if key.stacked else ((), ())
    for box, _ in cut(Box(spec.name, begin, key.shape[key.stacked :]), 0, ITEMSIZE[spec.dtype], CHUNK):
        sizes = lead[1] + box.lengths
        parts = item_parts(spec.dtype, sizes)
        offsets = lead[0] + tuple(o - b for o, b in zip(box.offsets, begin, strict=True))
        chunk = StoredChunk(offsets, sizes, plan.room(parts.nbytes))
        plan.files[-1].items.append(_Item(chunk, box, parts))
        yield chunk


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


def _data_files(plan: _Plan) -> Iterator[OutFile]:
    for file in plan.files:
        pieces = [Piece(item.box, item.chunk.place.offset + item.parts.data_offset) for item in file.items]
        yield OutFile(file.name, file.size, pieces, file.entries, _sealer(file.items))


def _sealer(items: Sequence[_Item]) -> Callable[[Sequence[int]], Iterator[tuple[int, bytes]]]:
    def seal(sums: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        for (chunk, _, parts), crc in zip(items, sums, strict=True):
            tail = parts.tail(crc)
            yield chunk.place.offset, parts.head(crc)
            yield chunk.place.offset + parts.nbytes - len(tail), tail

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
        ("common.pt", saved(plain_pickle(common))),
        (".metadata", dcp_pickle(plan.keys, plan.entries, VERSION)),
        ("metadata.json", json.dumps(backend).encode()),
    ):
        yield small_file(name, data)
