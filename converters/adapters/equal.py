"""Whether tensors hold the same numbers, bit for bit, or zeros alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..tensors.dtypes import ITEMSIZE, storage
from ..tensors.spec import Box, Reader, whole
from ..tensors.tiling import WINDOW, cut

if TYPE_CHECKING:
    from ..tensors.spec import Array


def equal_bits(reader: Reader, one: str, other: str) -> bool:
    """Whether two tensors of a reader have one shape and dtype, and the same bits. A window of each is held."""
    if one == other:
        return True
    a, b = reader.specs[one], reader.specs[other]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    boxes = (box for box, _ in cut(whole(a), 0, ITEMSIZE[a.dtype], WINDOW))
    return all((_read(reader, box) == _read(reader, box._replace(name=other))).all() for box in boxes)


def _read(reader: Reader, box: Box) -> Array:
    import numpy as np

    found = np.empty(box.lengths, storage(reader.specs[box.name].dtype))
    reader.read_into(box, found)
    return found


def all_zero(reader: Reader, name: str) -> bool:
    """Whether a tensor's bits are all zero."""
    spec = reader.specs[name]
    return not any(_read(reader, box).any() for box, _ in cut(whole(spec), 0, ITEMSIZE[spec.dtype], WINDOW))
