"""One adapter that serves all experts of a layer: it is saved once for each of them, and all are to be equal.

Each expert-parallel rank writes its own copy for the experts that it has. Where a trainer did not keep the copies
together they differ, and experts of one rank were trained with another adapter than those of the next.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import shown
from ..formats.chunks import ChunkReader
from ..formats.sums.crc import crc32
from ..tensors.dtypes import storage
from ..tensors.spec import Box
from .names import Found
from .stated import Told


def copies_told(found: Found, told: Told, reader: ChunkReader) -> list[str]:
    """What is to be told of copies that differ; nothing where experts have adapters of their own.

    Args:
        found: the adapter's names.
        told: whether it is shared.
        reader: of the files.
    """
    if not told.shared:
        return []
    lines = []
    for place, halves in found.halves.items():
        for name in halves:
            if len(reader.specs[name].shape) == 3:
                kinds = len(set(_sums(reader, name)))
                if kinds > 1:
                    what = f"the experts share one adapter, and {kinds} different copies of it were saved"
                    lines.append(f"{shown(place.module)}: {what}; each expert keeps its own")
                    break
    return lines


def _sums(reader: ChunkReader, name: str) -> Iterator[object]:
    """For each expert what its numbers add up to: the files' own checksums, else what is read."""
    experts = reader.specs[name].shape[0]
    stated = reader.sums_by_row(name)
    for expert in range(experts):
        yield stated[expert] if stated else _sum(reader, name, expert)


def _sum(reader: ChunkReader, name: str, expert: int) -> int:
    import numpy as np

    _, shape, dtype = reader.specs[name]
    bits = np.empty((1, *shape[1:]), storage(dtype))
    reader.read_into(Box(name, (expert, 0, 0), bits.shape), bits)
    return crc32(memoryview(bits.reshape(-1)).cast("B"))
