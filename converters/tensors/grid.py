"""Boxes that tile a tensor as the cells of a grid, every axis cut at the same places throughout: nearly all do.

That is seen axis by axis, without holding boxes against one another. Of others nothing is said here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .spec import Shape

if TYPE_CHECKING:
    from .spec import Array


def is_grid(shape: Shape, boxes: Sequence[tuple[Shape, Shape]]) -> bool:
    """Whether boxes, (offsets, lengths) each, are the cells of a grid over the whole tensor, each there once."""
    if not boxes:
        return False
    offsets, lengths = [box[0] for box in boxes], [box[1] for box in boxes]
    if {*map(len, offsets), *map(len, lengths)} - {len(shape)}:
        return False
    cells = 1
    for extent, starts, sizes in zip(shape, zip(*offsets, strict=True), zip(*lengths, strict=True), strict=True):
        intervals = set(zip(starts, sizes, strict=True))
        if not _cover(intervals, extent):
            return False
        cells *= len(intervals)
    return cells == len(boxes) == len(set(offsets))


def is_large_grid(shape: Shape, boxes: Array) -> bool:
    """The same of boxes in an array, int64 [boxes, 2, axes]; quicker where they are many."""
    import numpy as np

    if boxes.shape[2] != len(shape):
        return False
    cells, number = 1, np.zeros(len(boxes), np.int64)
    for axis, extent in enumerate(shape):
        starts, first, cell = np.unique(boxes[:, 0, axis], return_index=True, return_inverse=True)
        sizes = boxes[first, 1, axis]
        cells *= len(starts)
        alike = bool((boxes[:, 1, axis] == sizes[cell]).all())
        if not alike or cells > len(boxes) or not _cover(zip(starts.tolist(), sizes.tolist(), strict=True), extent):
            return False
        number = number * len(starts) + cell
    return bool((np.bincount(number, minlength=cells) == 1).all())


def _cover(intervals: Iterable[tuple[int, int]], extent: int) -> bool:
    """Whether intervals, (start, size) each, follow one another from 0 to the end."""
    at = 0
    for start, size in sorted(intervals):
        if start != at or size < 1:
            return False
        at += size
    return at == extent
