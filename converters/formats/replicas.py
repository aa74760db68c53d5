"""Tensors that several ranks hold whole: equal by their checksums, or compared."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from ..bits import largest_difference
from ..tensors import ITEMSIZE, Box, TensorSpec, storage
from .chunks import BLOCK, Chunk, ChunkReader, Extent, row_major
from .zips import ItemTensor

if TYPE_CHECKING:
    from ..tensors import Array


def difference(first_path: str, first: ItemTensor, second_path: str, second: ItemTensor) -> str:
    """How two copies of a tensor differ, in words; "" when they are equal.

    The zip's own checksums answer for whole storages without reading them.
    """
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return f"{first.dtype} {list(first.shape)} and {second.dtype} {list(second.shape)}"
    views = [(t.start, t.strides, t.nbytes) for t in (first, second)]
    if first.crc and first.crc == second.crc and views[0] == views[1]:
        return ""
    unequal, largest = 0, None
    for a, b in zip(_blocks(first_path, first), _blocks(second_path, second), strict=True):
        if count := int((a != b).sum()):
            unequal += count
            gap = largest_difference(a, b, first.dtype)
            largest = gap if largest is None else max(largest, gap or 0.0)
    if not unequal:
        return ""
    return f"{unequal} of {prod(first.shape)} elements" + (f", by at most {largest:.3g}" if largest is not None else "")


def _blocks(path: str, tensor: ItemTensor) -> Iterator[Array]:
    """A tensor's numbers, a bounded part of its first axis at a time."""
    import numpy as np

    shape = tensor.shape or (1,)
    extent = Extent(path, tensor.data_offset, tensor.nbytes)
    reader = ChunkReader(
        {"": TensorSpec("", shape, tensor.dtype)},
        {"": [Chunk((0,) * len(shape), shape, 0, tensor.start, tensor.strides or row_major(shape))]},
        lambda _: extent,
    )
    rows = max(1, BLOCK // max(1, prod(shape[1:]) * ITEMSIZE[tensor.dtype]))
    for first in range(0, shape[0], rows):
        lengths = (min(rows, shape[0] - first), *shape[1:])
        out = np.empty(lengths, storage(tensor.dtype))
        reader.read_into(Box("", (first, *(0,) * (len(shape) - 1)), lengths), out)
        yield out
