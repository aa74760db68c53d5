"""Runs of elements held against each other. Equality is of bits: NaN equals the same NaN, -0 differs from +0."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from ...tensors.dtypes import largest_difference, storage, widen
from ...tensors.nonfinite import is_nan

if TYPE_CHECKING:
    from ...tensors.spec import Array

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

BLOCK = 1 << 17
"""Elements that are held against each other at a time: they, and what is made of them, stay in cache."""


class Unlike(NamedTuple):
    """What differs within a block.

    Attributes:
        elements: how many.
        first: number of the first of them in the run.
        largest: |difference| of two finite numbers; None where there is none.
        nan: how many of them are NaN on either side.
    """

    elements: int
    first: int
    largest: float | None
    nan: int = 0


def unlike(left: Array, right: Array, dtypes: tuple[str, str]) -> Iterator[Unlike]:
    """What differs, block by block and in order; nothing where all are equal.

    Args:
        left, right: the bits of as many elements, as unsigned integers of their width.
        dtypes: of either side; different ones are held against each other after exact widening.
    """
    if dtypes[0] == dtypes[1] and _same(left, right):
        return
    for at in range(0, len(left), BLOCK):
        found = _block(left[at : at + BLOCK], right[at : at + BLOCK], dtypes)
        if found is not None:
            yield found._replace(first=found.first + at)


def _same(left: Array, right: Array) -> bool:
    """Whether two runs of one dtype are equal to the last bit; False, too, where they do not lie in one piece.

    numpy makes a truth value of every element on the way. The C library makes none, and lets other threads run.
    """
    if left.nbytes != right.nbytes or not (left.flags.c_contiguous and right.flags.c_contiguous):
        return False
    order: int = _memcmp(*(side.__array_interface__["data"][0] for side in (left, right)), left.nbytes)
    return order == 0


def _block(left: Array, right: Array, dtypes: tuple[str, str]) -> Unlike | None:
    dtype = dtypes[0]
    if dtype == dtypes[1]:
        unequal = left != right
    else:
        dtype = "float64" if "float64" in dtypes else "float32"
        left, right = widen(left, dtypes[0], dtype), widen(right, dtypes[1], dtype)
        unequal = left.view(storage(dtype)) != right.view(storage(dtype))
    if not unequal.any():
        return None
    left, right = left[unequal], right[unequal]
    largest, nan = largest_difference(left, right, dtype), int((is_nan(left, dtype) | is_nan(right, dtype)).sum())
    return Unlike(len(left), int(unequal.argmax()), largest, nan)
