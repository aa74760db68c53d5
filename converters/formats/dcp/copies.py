"""A data file that is a copy of another one: the slip of a copy script. Everything in it reads, and is wrong.

Ranks that hold equal shares write files of the same layout, so the items of a copy are just where `.metadata` says.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import CorruptError, shown
from ...tensors.vocabulary import OUTPUT_LAYER
from ..chunks import Extent
from ..open_files import OpenFiles
from .metadata import DcpMetadata

if TYPE_CHECKING:
    from ...tensors.spec import Array

BLOCK = 1 << 20

Locate = Callable[[int], Extent]


def check_copies(metadata: DcpMetadata, items: Array, locate: Locate, files: OpenFiles) -> None:
    """No two files hold the same bytes in all of their items, by the checksums that they state.

    What may well be equal is no evidence: items of one number each (norms of ones, biases of zeros), experts that were
    made of one another, a tied model's copy of its embedding. Most files differ in their largest item, so little more
    than one item of each file is looked at.

    Args:
        metadata: of the checkpoint.
        items: those of weights.
        locate: item -> where its bytes lie.
        files: opens them.

    Raises:
        CorruptError: two do; names both.
    """
    for group in _of_same_layout(metadata, items):
        for one, other in _alike(group, metadata, locate):
            if any(_must_differ(metadata, item) and not _is_constant(locate(item), files) for item in one):
                names = [shown(Path(locate(held[0]).path).name) for held in (one, other)]
                raise CorruptError(
                    f"{' and '.join(names)} hold the same numbers where .metadata says they hold different tensors",
                    "One is a copy of the other: copy each file again from where it was saved.",
                )


def _must_differ(metadata: DcpMetadata, item: int) -> bool:
    name = metadata.tensors[int(metadata.item_tensor[item])].name
    return ".experts." not in name and not name.endswith(OUTPUT_LAYER)


def _of_same_layout(metadata: DcpMetadata, items: Array) -> Iterator[list[list[int]]]:
    """Items of each file, in their order, for all files that have as many at the same places."""
    import numpy as np

    listed = np.asarray(items, np.int64)
    order = np.lexsort((metadata.item_offset[listed], metadata.item_file[listed]))
    listed = listed[order]
    cuts = np.flatnonzero(np.diff(metadata.item_file[listed])) + 1
    groups: dict[bytes, list[list[int]]] = {}
    for held in np.split(listed, cuts):
        layout = metadata.item_offset[held].tobytes() + metadata.item_length[held].tobytes()
        groups.setdefault(layout, []).append(held.tolist())
    return (group for layout, group in groups.items() if layout and len(group) > 1)


def _alike(
    group: list[list[int]], metadata: DcpMetadata, locate: Locate
) -> Iterator[tuple[Sequence[int], Sequence[int]]]:
    """Pairs of files whose items all have the same sums."""
    largest_first = sorted(range(len(group[0])), key=lambda at: -int(metadata.item_length[group[0][at]]))
    suspects = [group]
    for at in largest_first:
        suspects = [part for held in suspects for part in _split(held, at, locate)]
    yield from ((held[0], other) for held in suspects for other in held[1:])


def _split(group: list[list[int]], at: int, locate: Locate) -> Iterator[list[list[int]]]:
    """The files that agree in one item, together."""
    parts: dict[tuple[int, int], list[list[int]]] = {}
    for held in group:
        extent = locate(held[at])
        if extent.crc:  # without one nothing is known
            parts.setdefault((extent.crc, extent.nbytes), []).append(held)
    return (part for part in parts.values() if len(part) > 1)


def _is_constant(extent: Extent, files: OpenFiles) -> bool:
    """Whether an item's bytes repeat every eight bytes, as those of a single number do."""
    with files.held(extent.path) as fd:
        first = os.pread(fd, min(8, extent.nbytes), extent.offset)
        for at in range(0, extent.nbytes, BLOCK):
            block = os.pread(fd, min(BLOCK, extent.nbytes - at), extent.offset + at)
            if block != (first * (len(block) // 8 + 1))[: len(block)]:
                return False
    return True
