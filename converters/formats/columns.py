"""Chunks of one tensor as columns of numbers: a large model has hundreds of thousands, too many for a tuple each.

They are row-major from some element of their item on; chunks with strides stay tuples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, overload

from ..tensors.grid import is_large_grid
from ..tensors.spec import Shape
from ..tensors.tiling import tiling_fault
from .chunks import Chunk

if TYPE_CHECKING:
    from ..tensors.spec import Array

MOST = 1 << 24
"""Chunks of one tensor: a few bytes of metadata can claim any number of them."""

FEW = 32
"""Chunks whose boxes are sooner looked at one by one than as columns."""


class ChunkColumns(Sequence[Chunk]):
    """Chunks of one tensor.

    Attributes:
        boxes: offsets and lengths of each, int64 [chunks, 2, axes].
        items: of each, int64 [chunks].
        starts: the first element of each in its item, int64 [chunks]; None: they begin with their items.
    """

    __slots__ = ("boxes", "items", "starts")

    def __init__(self, boxes: Array, items: Array, starts: Array | None = None) -> None:
        self.boxes, self.items, self.starts = boxes, items, starts

    def __len__(self) -> int:
        return len(self.items)

    @overload
    def __getitem__(self, at: int) -> Chunk: ...
    @overload
    def __getitem__(self, at: slice) -> ChunkColumns: ...
    def __getitem__(self, at: int | slice) -> Chunk | ChunkColumns:
        if isinstance(at, slice):
            return self.where(at)
        offsets, lengths = self.boxes[at].tolist()
        start = 0 if self.starts is None else int(self.starts[at])
        return Chunk(tuple(offsets), tuple(lengths), int(self.items[at]), start)

    def __iter__(self) -> Iterator[Chunk]:
        starts = [0] * len(self) if self.starts is None else self.starts.tolist()
        for (offsets, lengths), item, start in zip(self.boxes.tolist(), self.items.tolist(), starts, strict=True):
            yield Chunk(tuple(offsets), tuple(lengths), item, start)

    def where(self, chosen: Array | slice) -> ChunkColumns:
        """Some of them."""
        starts = None if self.starts is None else self.starts[chosen]
        return ChunkColumns(self.boxes[chosen], self.items[chosen], starts)


class Moved(NamedTuple):
    """Chunks of a part of a tensor, and where that part lies in it.

    Attributes:
        chunks: in the part.
        row: how many rows stand before it.
        expert: its place on a leading axis that the part does not have; None: it has all axes.
    """

    chunks: ChunkColumns
    row: int = 0
    expert: int | None = None


def columns_of(chunks: Sequence[Chunk], axes: int) -> ChunkColumns:
    """Any chunks of a tensor with so many axes; none of them may have strides."""
    import numpy as np

    if isinstance(chunks, ChunkColumns):
        return chunks
    assert all(chunk.strides is None for chunk in chunks)
    boxes = np.array([chunk[:2] for chunk in chunks], np.int64).reshape(len(chunks), 2, axes)
    items, starts = (np.array([chunk[at] for chunk in chunks], np.int64) for at in (2, 3))
    return ChunkColumns(boxes, items, starts if starts.any() else None)


def fault_of(chunks: Sequence[Chunk], shape: Shape) -> str | None:
    """Why chunks do not tile a tensor, as `tiling_fault` says it; None when they do."""
    if not isinstance(chunks, ChunkColumns):
        return tiling_fault(shape, [(c.offsets, c.lengths) for c in chunks])
    if len(chunks) > FEW and is_large_grid(shape, chunks.boxes):
        return None
    return tiling_fault(shape, [(tuple(offsets), tuple(lengths)) for offsets, lengths in chunks.boxes.tolist()])


def joined(parts: Sequence[Moved]) -> ChunkColumns:
    """The chunks of a tensor, from those of its parts."""
    if len(parts) == 1 and parts[0][1:] == (0, None):
        return parts[0].chunks
    whole, experts = [p for p in parts if p.expert is None], [p for p in parts if p.expert is not None]
    return _concatenated([_shifted(listed) for listed in (whole, experts) if listed])


def _shifted(parts: Sequence[Moved]) -> ChunkColumns:
    """The chunks of parts that all have the axis of experts, or all have not, in the tensor."""
    import numpy as np

    counts = [part.chunks.items.size for part in parts]
    chunks = _concatenated([part.chunks for part in parts])
    boxes = chunks.boxes
    if any(part.row for part in parts):
        boxes = boxes.copy()
        boxes[:, 0, 0] += np.repeat([part.row for part in parts], counts)
    if parts[0].expert is not None:
        lead = np.empty((len(chunks), 2, 1), np.int64)
        lead[:, 0, 0], lead[:, 1, 0] = np.repeat([part.expert or 0 for part in parts], counts), 1
        boxes = np.concatenate([lead, boxes], axis=2)
    return ChunkColumns(boxes, chunks.items, chunks.starts)


def _concatenated(listed: Sequence[ChunkColumns]) -> ChunkColumns:
    import numpy as np

    if len(listed) == 1:
        return listed[0]
    starts = None
    if any(chunks.starts is not None for chunks in listed):
        starts = np.concatenate([np.zeros(len(c), np.int64) if c.starts is None else c.starts for c in listed])
    return ChunkColumns(np.concatenate([c.boxes for c in listed]), np.concatenate([c.items for c in listed]), starts)


def begins_on(chunks: ChunkColumns, axis: int) -> tuple[int, ...]:
    """Where chunks begin on an axis, each place once, in order."""
    import numpy as np

    return tuple(np.unique(chunks.boxes[:, 0, axis]).tolist())


def reaches_outside(chunks: ChunkColumns, rows: int) -> bool:
    """Whether a chunk reaches beyond so many rows on the first axis."""
    first, count = chunks.boxes[:, 0, 0], chunks.boxes[:, 1, 0]
    return bool(((first < 0) | (first + count > rows)).any())


def rows_apart(chunks: ChunkColumns, rows: int) -> list[ChunkColumns]:
    """The chunks of each row of a tensor's first axis, without that axis.

    Args:
        chunks: of the tensor, inside it.
        rows: how many it has.

    Raises:
        ValueError: they are more than MOST.
    """
    import numpy as np

    if (chunks.boxes[:, 1, 0] != 1).any():
        chunks = _cut_in_rows(chunks)
    first = chunks.boxes[:, 0, 0]
    order = np.argsort(first)
    ends = np.searchsorted(first[order], np.arange(rows + 1)).tolist()
    ordered = chunks.where(order)
    inner = ChunkColumns(np.ascontiguousarray(ordered.boxes[:, :, 1:]), ordered.items, ordered.starts)
    return [inner.where(slice(*between)) for between in pairwise(ends)]


def _cut_in_rows(chunks: ChunkColumns) -> ChunkColumns:
    """A chunk for each row of the first axis, but with the length there of the one that it was cut from."""
    import numpy as np

    counts = chunks.boxes[:, 1, 0]
    if counts.sum(dtype=np.float64) > MOST:
        raise ValueError
    rows = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    row_sizes = np.repeat(chunks.boxes[:, 1, 1:].prod(axis=1), counts)
    cut = chunks.where(np.repeat(np.arange(len(chunks)), counts))
    boxes = cut.boxes.copy()
    boxes[:, 0, 0] += rows
    return ChunkColumns(boxes, cut.items, rows * row_sizes + (0 if cut.starts is None else cut.starts))
