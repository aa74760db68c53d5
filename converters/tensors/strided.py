"""Copies that repeat at equal steps, as query groups do: one strided copy instead of one for each group."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from .rules import Copy


class Run(NamedTuple):
    """A copy, and `times - 1` more like it, each so many rows (of axis 0) further on its side."""

    copy: Copy
    times: int = 1
    left_step: int = 0
    right_step: int = 0


def runs(copies: Sequence[Copy]) -> Iterator[Run]:
    """The copies between two tensors, as few runs; in no order.

    Args:
        copies: in the order of a rule: what a group is made of comes in the same order in every group.
    """
    period = next((n for n in range(1, len(copies) // 2 + 1) if _repeats(copies, n)), 0)
    if not period:
        yield from map(Run, copies)
        return
    for first, second in zip(copies[:period], copies[period : 2 * period], strict=True):
        left, right = (b.offsets[0] - a.offsets[0] for a, b in ((first.left, second.left), (first.right, second.right)))
        yield Run(first, len(copies) // period, left, right)


def _repeats(copies: Sequence[Copy], period: int) -> bool:
    """Whether each copy is that of one period before, moved on by always the same rows on either side."""
    if len(copies) % period:
        return False
    steps = {_step(a, b) for a, b in zip(copies, copies[period:], strict=False)}
    return len(steps) == 1 and None not in steps


def _step(a: Copy, b: Copy) -> tuple[int, int] | None:
    """How many rows further the second one is on each side; None where it is not the first one, moved."""
    same = (a.left.lengths, a.right.lengths, a.transpose) == (b.left.lengths, b.right.lengths, b.transpose)
    if not same or not a.left.offsets or len(a.left.offsets) != len(a.right.offsets):
        return None
    if a.left.offsets[1:] != b.left.offsets[1:] or a.right.offsets[1:] != b.right.offsets[1:]:
        return None
    left, right = b.left.offsets[0] - a.left.offsets[0], b.right.offsets[0] - a.right.offsets[0]
    return (left, right) if left > 0 and right > 0 else None
