"""Tensors that several ranks hold whole: equal by their checksums, or compared."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..bits import largest_difference
from ..tensors import ITEMSIZE, storage
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
    a, b = _read(first_path, first), _read(second_path, second)
    unequal = int((a != b).sum())
    if not unequal:
        return ""
    largest = largest_difference(a, b, first.dtype)
    return f"{unequal} of {a.size} elements" + (f", by at most {largest:.3g}" if largest is not None else "")


def _read(path: str, tensor: ItemTensor) -> Array:
    import numpy as np

    fd = os.open(path, os.O_RDONLY)
    try:
        data = os.pread(fd, tensor.nbytes, tensor.data_offset)
    finally:
        os.close(fd)
    flat = np.frombuffer(data, storage(tensor.dtype))[tensor.start :]
    if tensor.strides is None:
        return flat[: int(np.prod(tensor.shape))].reshape(tensor.shape)
    width = ITEMSIZE[tensor.dtype]
    return np.lib.stride_tricks.as_strided(flat, tensor.shape, tuple(s * width for s in tensor.strides))
