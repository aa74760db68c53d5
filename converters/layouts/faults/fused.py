"""Tensors that Megatron holds as one and Hugging Face apart, taken for another order of rows than they were in.

Whatever the order, it is a list of equal boxes between the tensor in that order (M) and its parts one behind the other
(F). A tool that takes order a for order b moves Hugging Face -> F -> M by a, and M -> F -> Hugging Face by b.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from ...tensors.joined import joined
from ...tensors.rules import Copy, Rows, flipped, interleave
from ...tensors.spec import Shape
from .fault import Group, normal

M, F = "megatron", "flat"

RANKS = (2, 4, 8)
"""Tensor parallel sizes that are tried."""

FLAT = "flat"


class Part(NamedTuple):
    """Rows of a Hugging Face tensor that are one section of a fused one."""

    name: str
    rows: int
    start: int = 0


class Fused(NamedTuple):
    """One fused tensor.

    Attributes:
        parts: its sections, in order.
        tail: the axes behind the rows.
        groups: into how many it is interleaved: query groups, heads, key heads; 0: it is not.
        orders: others by name, each as copies between M and F.
        home: copies between F and the Hugging Face tensors; None: each part is its rows.
    """

    parts: tuple[Part, ...]
    tail: Shape
    groups: int = 0
    orders: tuple[tuple[str, tuple[Copy, ...]], ...] = ()
    home: tuple[Copy, ...] | None = None


def order(fused: Fused, name: str) -> list[Copy] | None:
    """Copies between M in an order ("flat", "groups", "tp2", or one of its own) and F; None: there is no such order."""
    own = dict(fused.orders).get(name)
    if own is not None:
        return list(own)
    times = {FLAT: 1, "groups": fused.groups, **{f"tp{n}": n for n in RANKS}}.get(name, 0)
    if not times or (name.startswith("tp") and times == fused.groups) or any(p.rows % times for p in fused.parts):
        return None
    starts = [sum(p.rows for p in fused.parts[:i]) for i in range(len(fused.parts))]
    rows = [Rows(F, part.rows // times, start) for part, start in zip(fused.parts, starts, strict=True)]
    return list(interleave(M, times, fused.tail, rows))


def taken_for(fused: Fused, true: str, false: str) -> Group | None:
    """The group that comes of taking one order for another.

    None where the integers have no such order, or where both are the same one, as with one query group or one head to a
    group: nothing moves then.
    """
    there, back = order(fused, true), order(fused, false)
    if there is None or back is None or there == back or normal(there) == normal(back):
        return None
    names = tuple(dict.fromkeys(copy.right.name for copy in _home(fused)))
    return Group(names, partial(_moved, fused, true, false))


def _moved(fused: Fused, true: str, false: str) -> list[Copy]:
    home, there, back = _home(fused), order(fused, true), order(fused, false)
    assert there is not None
    assert back is not None
    return joined(joined(flipped(home), flipped(there)), joined(back, home))


def _home(fused: Fused) -> list[Copy]:
    if fused.home is not None:
        return list(fused.home)
    return list(interleave(F, 1, fused.tail, [Rows(p.name, p.rows, p.start) for p in fused.parts]))


def swapped(parts: Sequence[Part], tail: Shape) -> tuple[Copy, ...]:
    """The parts in the opposite order."""
    starts = [sum(p.rows for p in parts[:i]) for i in range(len(parts))]
    rows = [Rows(F, part.rows, start) for part, start in zip(parts, starts, strict=True)]
    return tuple(interleave(M, 1, tail, rows[::-1]))


def pairs(orders: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Orders that may be mistaken for each other, the likelier first; two tensor parallel sizes are not."""
    yield from ((one, FLAT) for one in orders if one != FLAT)
    yield from ((FLAT, one) for one in orders if one != FLAT)
    for one in orders:
        for other in orders:
            if one != other and FLAT not in (one, other) and not (one.startswith("tp") and other.startswith("tp")):
                yield one, other
