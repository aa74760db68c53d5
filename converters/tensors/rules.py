"""The mapping language: equal boxes of two tensors, and the few ways two names share numbers.

Left is the mcore side, right the Hugging Face side; `flipped` turns a list round. Every helper yields rules for one
left tensor and reads like a row of a table. Row = index on axis 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import add, sub
from typing import NamedTuple

from .spec import Box, Shape


class Copy(NamedTuple):
    """Two boxes with the same elements in the same order; with `transpose` the last two axes are exchanged.

    Leading axes of length 1 may be missing on one side.
    """

    left: Box
    right: Box
    transpose: bool = False


class Pad(NamedTuple):
    """A box of the left side that holds nothing of the model: vocabulary padding."""

    box: Box


Rule = Copy | Pad


class Rows(NamedTuple):
    """A part of an interleaved tensor: `per_group` rows of `name` for each group, from row `start` on.

    From one group's rows to the next one's are `step` rows; None: as many as a group has.
    """

    name: str
    per_group: int
    start: int = 0
    step: int | None = None


def flipped(copies: Iterable[Copy]) -> list[Copy]:
    """The same boxes read the other way round."""
    return [Copy(right, left, transpose) for left, right, transpose in copies]


def counterpart(copy: Copy, offsets: Shape, lengths: Shape) -> Box:
    """The left box that is a part of a copy's right box; offsets are those of the right tensor."""
    left, right = copy.left, copy.right
    moved = list(map(sub, offsets, right.offsets))
    extent = list(lengths)
    if copy.transpose:
        moved[-1], moved[-2] = moved[-2], moved[-1]
        extent[-1], extent[-2] = extent[-2], extent[-1]
    surplus = len(extent) - len(left.lengths)
    if surplus > 0:
        moved, extent = moved[surplus:], extent[surplus:]
    elif surplus < 0:
        moved, extent = [0] * -surplus + moved, [1] * -surplus + extent
    return Box(left.name, tuple(map(add, left.offsets, moved)), tuple(extent))


def rename(left: str, right: str, shape: Shape) -> Iterator[Copy]:
    """One tensor under two names."""
    zero = (0,) * len(shape)
    yield Copy(Box(left, zero, shape), Box(right, zero, shape))


def transposed(left: str, right: str, shape: Shape) -> Iterator[Copy]:
    """One tensor whose last two axes are exchanged on the right; `shape` is the left one."""
    zero = (0,) * len(shape)
    yield Copy(Box(left, zero, shape), Box(right, zero, (*shape[:-2], shape[-1], shape[-2])), transpose=True)


def interleave(left: str, groups: int, tail: Shape, parts: Sequence[Rows]) -> Iterator[Copy]:
    """Left holds, group after group, some rows of each part: [q | k | v] per query group.

    Two groups, two query heads and one key and value head to a group, heads of 4 rows (q [16], k [8], v [8]):

        left rows  0 .. 7   q rows 0 .. 7        left rows 16 .. 23   q rows 8 .. 15
        left rows  8 .. 11  k rows 0 .. 3        left rows 24 .. 27   k rows 4 .. 7
        left rows 12 .. 15  v rows 0 .. 3        left rows 28 .. 31   v rows 4 .. 7

    is interleave("qkv", groups=2, tail=(hidden,), parts=[Rows("q", 8), Rows("k", 4), Rows("v", 4)]): six copies.

    Args:
        left: the interleaved tensor, of shape [groups * sum(per_group), *tail].
        groups: how many groups.
        tail: the axes behind the rows: (hidden,) for a weight, () for a bias.
        parts: what a group is made of, in order. Three parts of one tensor are the vision QKV.
    """
    zero = (0,) * len(tail)
    row = 0
    for group in range(groups):
        for part in parts:
            lengths = (part.per_group, *tail)
            start = part.start + group * (part.per_group if part.step is None else part.step)
            yield Copy(Box(left, (row, *zero), lengths), Box(part.name, (start, *zero), lengths))
            row += part.per_group


def concat(left: str, tail: Shape, parts: Sequence[tuple[str, int]]) -> Iterator[Copy]:
    """Left is the parts, (name, rows) each, one below the other: [gate; up]."""
    return interleave(left, 1, tail, [Rows(name, rows) for name, rows in parts])


def pad_rows(left: str, right: str, rows: int, padded: int, tail: Shape) -> Iterator[Rule]:
    """Left has `padded - rows` more rows at its end, which hold nothing."""
    yield from rename(left, right, (rows, *tail))
    # A left tensor with too few rows stays as it is: the shape check names it.
    if padded > rows:
        zero = (0,) * len(tail)
        yield Pad(Box(left, (rows, *zero), (padded - rows, *tail)))


class Table(NamedTuple):
    """A whole model's mapping."""

    copies: list[Copy]
    pads: list[Box]

    def left(self) -> dict[str, Shape]:
        """Names and shapes of the left side, padding included."""
        return hulls([*(c.left for c in self.copies), *self.pads])

    def right(self) -> dict[str, Shape]:
        """Names and shapes of the right side."""
        return hulls(c.right for c in self.copies)


def table(rules: Iterable[Rule]) -> Table:
    """Sort rules into copies and padding."""
    copies: list[Copy] = []
    pads: list[Box] = []
    for rule in rules:
        if isinstance(rule, Pad):
            pads.append(rule.box)
        else:
            copies.append(rule)
    return Table(copies, pads)


def hulls(boxes: Iterable[Box]) -> dict[str, Shape]:
    """For each tensor named, the smallest shape that holds its boxes."""
    shapes: dict[str, Shape] = {}
    for name, offsets, lengths in boxes:
        stop = tuple(map(add, offsets, lengths))
        known = shapes.get(name)
        if known is None:
            shapes[name] = stop
        elif known != stop:
            shapes[name] = tuple(map(max, known, stop))
    return shapes
