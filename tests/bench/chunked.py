"""Writes a torch_dist checkpoint again in as many chunks as ranks of tensor parallelism would make of it.

python -m bench.chunked SOURCE TARGET TP

Every expert is a chunk by itself, gate and up apart, and every matrix is cut among TP ranks, as Megatron-core saves
them. Items, `.metadata` and its pickle are torch's own. For models of next to no bytes: all items of a shape that
a file has hold the same random numbers, and files differ, as those of a training do. TARGET.json says how many chunks
and items there are.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import sys
from collections.abc import Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo

FILES = 64


class Item(NamedTuple):
    """A chunk of a tensor, or an entry of bytes."""

    index: dcp.MetadataIndex
    shape: tuple[int, ...]
    data: bytes  # as it is; b"": a tensor of this shape


def main() -> None:
    """Read the tables, cut them, write."""
    source, target, tp = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    target.mkdir()
    for name in ("common.pt", "metadata.json"):
        shutil.copy(source / name, target)
    metadata = FileSystemReader(source).read_metadata()
    items = list(_items(source, metadata, tp))
    metadata.storage_data = dict(_written(items, target))
    with (target / ".metadata").open("wb") as file:
        pickle.dump(metadata, file)
    chunks = sum(bool(item.shape) for item in items)
    document = {"chunks": chunks, "items": len(items), "metadata_bytes": (target / ".metadata").stat().st_size}
    target.with_suffix(".json").write_text(json.dumps(document))


def _items(source: Path, metadata: dcp.Metadata, tp: int) -> Iterator[Item]:
    """Every item of the new checkpoint; the tensors in `metadata` get their new chunks."""
    for name, record in metadata.state_dict_metadata.items():
        if isinstance(record, dcp.TensorStorageMetadata):
            counts = parts(name, tuple(record.size), tp)
            record.chunks = [piece for chunk in record.chunks for piece in _cut(chunk, counts)]
            for number, chunk in enumerate(record.chunks):
                yield Item(dcp.MetadataIndex(name, chunk.offsets, number), tuple(chunk.sizes), b"")
        else:
            index = dcp.MetadataIndex(name)
            place = metadata.storage_data[index]
            yield Item(index, (), _bytes(source / place.relative_path)[place.offset : place.offset + place.length])


def parts(name: str, shape: tuple[int, ...], tp: int) -> list[int]:
    """Into how many parts each axis of a tensor is cut, as far as its sizes let it be."""
    counts = [1] * len(shape)
    if name.endswith(".weight") and "norm" not in name and 2 <= len(shape) <= 4:
        if ".experts.experts." in name:
            counts[-3] = shape[-3]
        rows = not name.endswith(("linear_fc2.weight", "linear_proj.weight"))
        counts[-2 if rows else -1] = 2 * tp if name.endswith("linear_fc1.weight") else tp
    return [count if size % count == 0 else 1 for size, count in zip(shape, counts, strict=True)]


def _cut(chunk: dcp.ChunkStorageMetadata, counts: list[int]) -> Iterator[dcp.ChunkStorageMetadata]:
    """A chunk, of which an axis may be a part of the tensor's already: then it stays."""
    parts = [count if size % count == 0 else 1 for size, count in zip(chunk.sizes, counts, strict=True)]
    sizes = torch.Size(size // count for size, count in zip(chunk.sizes, parts, strict=True))
    for at in product(*map(range, parts)):
        offsets = (first + i * size for first, i, size in zip(chunk.offsets, at, sizes, strict=True))
        yield dcp.ChunkStorageMetadata(torch.Size(offsets), sizes)


def _written(items: list[Item], target: Path) -> Iterator[tuple[dcp.MetadataIndex, Any]]:
    """Write the files, and say where each item lies."""
    share = -(-len(items) // FILES)
    for number in range(FILES):
        name, at = f"__{number}_0.distcp", 0
        with (target / name).open("wb") as file:
            for item in items[number * share : (number + 1) * share]:
                data = item.data or _saved(item.shape, number)
                file.write(data)
                yield item.index, _StorageInfo(name, at, len(data))
                at += len(data)


@cache
def _saved(shape: tuple[int, ...], file: int) -> bytes:
    """An item of a file."""
    buffer = io.BytesIO()
    torch.save(torch.randn(shape).bfloat16(), buffer)
    return buffer.getvalue()


@cache
def _bytes(path: Path) -> bytes:
    return path.read_bytes()


if __name__ == "__main__":
    main()
