"""Arithmetic of boxes: which meet, whether they tile a tensor, and how one is cut into contiguous runs of bytes."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from math import prod
from operator import add, sub
from typing import TYPE_CHECKING, NamedTuple

from .grid import is_grid
from .spec import Box, Shape

if TYPE_CHECKING:
    from .spec import Array

WINDOW = 16 << 20
"""Bytes that are read and written, or compared, at a time by one thread."""


class Overlap(NamedTuple):
    """Which indexed box meets the asked one, and where: offsets are those of the tensor."""

    at: int
    offsets: Shape
    lengths: Shape


class BoxIndex:
    """Finds, among the boxes of one tensor, those that meet a given box."""

    __slots__ = ("_boxes", "_longest", "_order", "_starts")

    def __init__(self, boxes: Sequence[tuple[Shape, Shape]]) -> None:
        """Args: boxes: (offsets, lengths) of each, of one tensor."""
        self._boxes = boxes
        self._order = sorted(range(len(boxes)), key=lambda i: boxes[i][0])
        self._starts = [boxes[i][0][0] if boxes[i][0] else 0 for i in self._order]
        self._longest = max((b[1][0] for b in boxes if b[1]), default=1)

    def overlapping(self, offsets: Shape, lengths: Shape) -> Iterator[Overlap]:
        """Every indexed box that shares elements with the given one, with the shared part."""
        low = offsets[0] - self._longest if offsets else -1
        high = offsets[0] + lengths[0] if offsets else 1
        stop = tuple(map(add, offsets, lengths))
        for at in range(bisect_left(self._starts, low + 1), bisect_left(self._starts, high)):
            index = self._order[at]
            theirs, extent = self._boxes[index]
            start = tuple(map(max, offsets, theirs))
            shared = tuple(map(sub, map(min, stop, map(add, theirs, extent)), start))
            if min(shared, default=1) > 0:
                yield Overlap(index, start, shared)


def part(array: Array, box: Box, offsets: Shape, lengths: Shape) -> Array:
    """What an array that holds a box has of a smaller one inside it, as a view."""
    if lengths == box.lengths:
        return array
    begin = map(sub, offsets, box.offsets)
    return array[tuple([slice(first, first + n) for first, n in zip(begin, lengths, strict=True)])]


def tiling_fault(shape: Shape, boxes: Iterable[tuple[Shape, Shape]]) -> str | None:
    """Why boxes do not cover every element of `shape` exactly once; None when they do.

    Args:
        shape: the tensor's shape.
        boxes: (offsets, lengths) of each box.

    Returns:
        "leave a gap", "overlap" or "reach outside", with the place; or None.
    """
    listed = list(boxes)
    if is_grid(shape, listed):
        return None
    for offsets, lengths in listed:
        if len(offsets) != len(shape) or len(lengths) != len(shape):
            return f"have {len(offsets)} axes where the tensor has {len(shape)}"
        if any(o < 0 or n < 1 or o + n > s for o, n, s in zip(offsets, lengths, shape, strict=True)):
            return f"reach outside at {list(offsets)} + {list(lengths)}"
    clash = _first_overlap(listed, 0, len(shape))
    if clash is not None:
        return f"overlap at {list(clash)}"
    have, need = sum(prod(lengths) for _, lengths in listed), prod(shape)
    return None if have == need else f"leave a gap: {have} of {need} elements are there"


def _first_overlap(boxes: list[tuple[Shape, Shape]], axis: int, axes: int) -> Shape | None:
    """Offsets of an element in two boxes.

    Groups boxes that meet along an axis, then looks at the next axis within each group.
    """
    if len(boxes) < 2:
        return None
    if axis == axes:
        return tuple(map(max, boxes[0][0], boxes[1][0]))
    ordered = sorted(boxes, key=lambda b: b[0][axis])
    group: list[tuple[Shape, Shape]] = []
    end = 0
    for box in ordered:
        start = box[0][axis]
        if group and start >= end:
            clash = _in_group(group, axis, axes)
            if clash:
                return clash
            group = []
        end = max(end, start + box[1][axis]) if group else start + box[1][axis]
        group.append(box)
    return _in_group(group, axis, axes)


def _in_group(group: list[tuple[Shape, Shape]], axis: int, axes: int) -> Shape | None:
    if len({(b[0][axis], b[1][axis]) for b in group}) == 1:
        return _first_overlap(group, axis + 1, axes)
    # A ragged group: boxes chained along this axis without sharing one interval. Sweep it by its distinct cuts.
    for cut in sorted({b[0][axis] for b in group}):
        live = [b for b in group if b[0][axis] <= cut < b[0][axis] + b[1][axis]]
        clash = _first_overlap(live, axis + 1, axes)
        if clash:
            return clash
    return None


def cut(box: Box, offset: int, itemsize: int, limit: int) -> Iterator[tuple[Box, int]]:
    """Split a box into boxes that are contiguous in its row-major bytes.

    Each of at most `limit` bytes where one row allows it.

    Yields:
        (box, byte offset), in order.
    """
    nbytes = box.size * itemsize
    axis = next((a for a, n in enumerate(box.lengths) if n > 1), None)
    if nbytes <= limit or axis is None:
        yield box, offset
        return
    row = nbytes // box.lengths[axis]
    step = max(1, limit // row)
    for first in range(0, box.lengths[axis], step):
        rows = min(step, box.lengths[axis] - first)
        offsets = (*box.offsets[:axis], box.offsets[axis] + first, *box.offsets[axis + 1 :])
        lengths = (*box.lengths[:axis], rows, *box.lengths[axis + 1 :])
        yield from cut(Box(box.name, offsets, lengths), offset + first * row, itemsize, limit)
