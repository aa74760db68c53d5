"""A few numbers of a tensor, read to see what it may be; and all of them, to be sure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from ...tensors.dtypes import ITEMSIZE, storage, widen
from ...tensors.spec import Box, Reader, TensorSpec, whole
from ...tensors.tiling import cut

if TYPE_CHECKING:
    from ...tensors.spec import Array

WINDOW = 1 << 20
"""Bytes that are read at a time where all are; in float64 they are four times as many, and more than once."""

PROBE = 16 << 10
"""Bytes that are read at each of a few places."""

PLACES = 6

SAMPLE = 1 << 20
"""Numbers of one tensor that are looked at to say how it differs."""


class Likeness(NamedTuple):
    """How two lots of numbers compare.

    Attributes:
        equal: to the bit.
        relative: the length of their difference by the length of the first; infinite where that is none.
        correlation: of the numbers; 0.0 where one of them does not vary.
    """

    equal: bool
    relative: float
    correlation: float = 0.0


def bits(reader: Reader, box: Box) -> Array:
    """The elements of a box, as unsigned integers."""
    import numpy as np

    out = np.empty(box.lengths, storage(reader.specs[box.name].dtype))
    reader.read_into(box, out)
    return out


def wide(reader: Reader, box: Box) -> Array:
    """The elements of a box in float64, in one row."""
    return widen(bits(reader, box).reshape(-1), reader.specs[box.name].dtype, "float64")


def numbers(reader: Reader, box: Box) -> Array:
    """The same; what is no finite number is 0."""
    return _finite(wide(reader, box))


def _finite(found: Array) -> Array:
    import numpy as np

    return np.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0)


def probes(spec: TensorSpec, places: int = PLACES, nbytes: int = PROBE) -> list[Box]:
    """Small boxes all over a tensor."""
    room = max(1, nbytes // ITEMSIZE[spec.dtype])
    lengths = _fitting(spec.shape, room)
    rest = [size - length for size, length in zip(spec.shape, lengths, strict=True)]
    found = [tuple(space * place // max(1, places - 1) for space in rest) for place in range(places)]
    return [Box(spec.name, offsets, lengths) for offsets in dict.fromkeys(found)]


def _fitting(shape: tuple[int, ...], room: int) -> tuple[int, ...]:
    """The lengths of a box of at most so many elements, whole on its last axes, in one of several stacked matrices."""
    lengths: list[int] = []
    for size in reversed(shape):
        lengths.insert(0, max(1, min(size, room)))
        room //= lengths[0]
    return (1, *lengths[1:]) if len(shape) > 2 else tuple(lengths)


def sampled(spec: TensorSpec) -> list[Box]:
    """All of a tensor, or boxes of SAMPLE numbers spread over it."""
    if prod(spec.shape) <= SAMPLE:
        return list(windows(spec)) if prod(spec.shape) else []
    return probes(spec, 64, SAMPLE // 64 * ITEMSIZE[spec.dtype])


def likeness(a: Reader, b: Reader, boxes: Collection[Box]) -> Likeness:
    """How some boxes of two readers compare."""
    import numpy as np

    equal, off, ours, theirs, product = True, 0.0, 0.0, 0.0, 0.0
    for box in boxes:
        left, right, dtypes = bits(a, box), bits(b, box), [side.specs[box.name].dtype for side in (a, b)]
        if dtypes[0] != dtypes[1] or (left != right).any():
            equal = False
        x, y = (_finite(widen(found.reshape(-1), d, "float64")) for found, d in zip((left, right), dtypes, strict=True))
        off += float(np.square(x - y).sum())
        ours, theirs, product = ours + float(x @ x), theirs + float(y @ y), product + float(x @ y)
    relative = (off / ours) ** 0.5 if ours else (0.0 if not off else float("inf"))
    both = (ours * theirs) ** 0.5
    return Likeness(equal, relative, product / both if both else 0.0)


def windows(spec: TensorSpec) -> Iterator[Box]:
    """All of a tensor, part by part."""
    yield from (part for part, _ in cut(whole(spec), 0, ITEMSIZE[spec.dtype], WINDOW))


def same(a: Reader, b: Reader, names: Collection[str]) -> bool:
    """Whether tensors of two readers are equal to the bit, in shape and dtype, too."""
    for name in names:
        if a.specs[name][1:] != b.specs[name][1:]:
            return False
        if any((bits(a, box) != bits(b, box)).any() for box in windows(a.specs[name])):
            return False
    return True
