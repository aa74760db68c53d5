"""Blocks of a tensor that share a scale, and where that scale stands in a tensor of its own.

The last two axes are cut into blocks of equal size from the first element on; those at the ends may be smaller. Axes
before them (experts) have scales of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from ..spec import Box, Shape


class Scaled(NamedTuple):
    """A tensor of FP8 numbers with scales.

    Attributes:
        name: of the tensor, which the plain one has too.
        scale: name of the scales' tensor.
        block: rows and columns that share a scale; columns 0: all there are.
    """

    name: str
    scale: str
    block: tuple[int, int]

    def blocks(self, shape: Shape) -> tuple[int, int]:
        """Rows and columns of a block in a tensor of some shape."""
        return self.block[0], self.block[1] or max(1, shape[-1])

    def scale_shape(self, shape: Shape) -> Shape:
        """The shape of the scales of a tensor of some shape, of two axes or more."""
        rows, columns = self.blocks(shape)
        return (*shape[:-2], -(-shape[-2] // rows), -(-shape[-1] // columns))

    def scales_of(self, box: Box, shape: Shape) -> Box:
        """The scales of all blocks that a box of a tensor meets."""
        begin, end = list(box.offsets), [o + n for o, n in zip(box.offsets, box.lengths, strict=True)]
        for axis, size in zip((-2, -1), self.blocks(shape), strict=True):
            begin[axis], end[axis] = begin[axis] // size, -(-end[axis] // size)
        return Box(self.scale, tuple(begin), tuple(e - b for b, e in zip(begin, end, strict=True)))

    def elements_of(self, box: Box, shape: Shape) -> Box:
        """The elements of all blocks whose scales are in a box of the scales."""
        begin, end = list(box.offsets), [o + n for o, n in zip(box.offsets, box.lengths, strict=True)]
        for axis, size in zip((-2, -1), self.blocks(shape), strict=True):
            begin[axis], end[axis] = begin[axis] * size, min(end[axis] * size, shape[axis])
        return Box(self.name, tuple(begin), tuple(e - b for b, e in zip(begin, end, strict=True)))

    def tiles(self, box: Box, shape: Shape, limit: int) -> Iterator[Box]:
        """Parts of a box of a tensor, each of one expert and ending where blocks end, unless the box ends before.

        Args:
            box: of the tensor.
            shape: of the tensor.
            limit: elements of a part and of the blocks that it meets, at most; a block may have more.
        """
        rows, columns = self.blocks(shape)
        width = max(1, limit // rows // columns) * columns
        height = max(1, limit // min(width, shape[-1]) // rows) * rows
        ends = [range(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True)]
        cuts = [[(at, 1) for at in axis] for axis in ends[:-2]]
        cuts += [list(_cut(axis, step)) for axis, step in zip(ends[-2:], (height, width), strict=True)]
        for spans in product(*cuts):
            yield Box(self.name, tuple(o for o, _ in spans), tuple(n for _, n in spans))


def _cut(axis: range, step: int) -> Iterator[tuple[int, int]]:
    """A range, cut at multiples of a number: (first, length) of each part."""
    at = axis.start
    while at < axis.stop:
        end = min(axis.stop, at - at % step + step)
        yield at, end - at
        at = end
