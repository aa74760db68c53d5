"""Two tables, one behind the other, as one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from .rules import Copy, counterpart, flipped
from .spec import Box
from .tiling import BoxIndex


class Lookup:
    """Finds, among copies, those whose left boxes meet a given box."""

    def __init__(self, copies: Iterable[Copy]) -> None:
        self._copies: dict[str, list[Copy]] = {}
        self._index: dict[str, BoxIndex] = {}
        for copy in flipped(copies):  # `counterpart` finds left boxes
            self._copies.setdefault(copy.right.name, []).append(copy)

    def meeting(self, box: Box) -> Iterator[Copy]:
        """The parts of copies whose left boxes are inside the given one."""
        turned = self._copies.get(box.name, [])
        index = self._index.get(box.name)
        if index is None:
            index = self._index[box.name] = BoxIndex([(c.right.offsets, c.right.lengths) for c in turned])
        for at, offsets, lengths in index.overlapping(box.offsets, box.lengths):
            copy = turned[at]
            if lengths == copy.right.lengths:  # all of it, as nearly always
                yield Copy(copy.right, copy.left, copy.transpose)
            else:
                yield Copy(Box(box.name, offsets, lengths), counterpart(copy, offsets, lengths), copy.transpose)


def joined(first: Sequence[Copy], second: Sequence[Copy]) -> list[Copy]:
    """Left of the first to right of the second, whose left side is the first one's right side.

    Of two transposes, one after the other, nothing remains.
    """
    onward = Lookup(second)
    result: list[Copy] = []
    for copy in first:
        for step in onward.meeting(copy.right):
            left = counterpart(copy, step.left.offsets, step.left.lengths)
            result.append(Copy(left, step.right, copy.transpose != step.transpose))
    return result
