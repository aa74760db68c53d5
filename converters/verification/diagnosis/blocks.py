"""A block of a tensor that alone differs: which rows, columns or experts, and which rank's part they may be."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from ...report import Difference
from ...tensors.spec import Reader, Shape
from .elsewhere import SHARDS
from .sample import bits, windows

if TYPE_CHECKING:
    from ...tensors.spec import Array

LEAST = 64
"""Numbers that are no block, but a few numbers."""

SECTIONS = (1, 2, 3)
"""Equal parts of an axis that ranks cut one by one: gate and up, or q, k and v."""


class Block(NamedTuple):
    """A run of indices of an axis, in words.

    Attributes:
        says: which they are.
        rank: whose part they are, "tensor-parallel rank 1 of 2"; "" where they are none's.
    """

    says: str
    rank: str


def block(a: Reader, b: Reader, difference: Difference) -> Block | None:
    """The rows, columns or experts that stand together and alone differ; None where they do not."""
    name, shape = difference.tensor, a.specs[difference.tensor].shape
    for axis, wrong in enumerate(_wrong(a, b, name)):
        what, kind = _called(name, shape, axis)
        for sections in SECTIONS if kind == "tensor" else SECTIONS[:1]:
            if found := _run(wrong, sections, difference.count, prod(shape) // shape[axis]):
                return _said(found, what, kind, sections, shape[axis])
    return None


def _wrong(a: Reader, b: Reader, name: str) -> list[Array]:
    """For each axis, the indices at which something differs."""
    import numpy as np

    shape = a.specs[name].shape
    axes = range(len(shape))
    found = [np.zeros(size, bool) for size in shape]
    for box in windows(a.specs[name]):
        unlike = bits(a, box) != bits(b, box)
        for axis in axes:
            inside = slice(box.offsets[axis], box.offsets[axis] + box.lengths[axis])
            found[axis][inside] |= unlike.any(axis=tuple(other for other in axes if other != axis))
    return found


def _called(name: str, shape: Shape, axis: int) -> tuple[str, str]:
    """What the indices of an axis are, and the parallelism that cuts it."""
    if len(shape) == 3 and "experts" in name.split("."):
        return ("experts", "rows", "columns")[axis], ("expert", "tensor", "tensor")[axis]
    return "rows" if not axis else "columns", "tensor"


def _run(wrong: Array, sections: int, count: int, each: int) -> range | None:
    """The indices that differ, the same in each section, if they are some in a row and nearly all of them differ."""
    import numpy as np

    if len(wrong) % sections:
        return None
    parts = wrong.reshape(sections, -1)
    where = np.flatnonzero(parts[0])
    if not len(where) or (parts != parts[0]).any():
        return None
    found = range(int(where[0]), int(where[-1]) + 1)
    numbers = len(found) * sections * each
    if len(found) == len(parts[0]) or len(where) < 0.95 * len(found) or count < 0.5 * numbers or numbers < LEAST:
        return None
    return found


def _said(found: range, what: str, kind: str, sections: int, size: int) -> Block:
    total = size // sections
    each = f" in each of {sections} equal parts" if sections > 1 else ""
    which = f"{what} {found[0]} to {found[-1]}" if len(found) > 1 else f"{what[:-1]} {found[0]}"
    says = f"{which} of {total}{each} alone differ{'s' * (len(found) == 1)}"
    for parts in SHARDS:
        shard = total // parts
        if total % parts == 0 and found[0] // shard == found[-1] // shard and len(found) > 0.9 * shard:
            rank = f"{kind}-parallel rank {found[0] // shard} of {parts}"
            return Block(f"{says}, the part of {rank}, as if of another iteration", rank)
    return Block(says, "")
