"""Tensors that several ranks hold whole: equal by their checksums, or compared."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import TYPE_CHECKING

from ...errors import MismatchError, shown
from ...tensors.dtypes import ITEMSIZE, largest_difference, storage
from ...tensors.spec import Box, TensorSpec
from ..chunks import BLOCK, Chunk, ChunkReader, Extent, row_major
from ..zips.read import ItemTensor
from .crc import crc32

if TYPE_CHECKING:
    from ...tensors.spec import Array


def no_copy(what: str, how: str) -> MismatchError:
    """The refusal of a tied model's second copy that is none: one of the two would be lost."""
    hint = "One of the two would be lost. Is config.json that of another model, or are the files damaged?"
    return MismatchError(f"the model is tied, but {what} is no copy of its embedding: {how}", hint)


def check_tied_copy(reader: ChunkReader, embedding: str, output: str) -> None:
    """A tied model's output layer that is saved all the same, as some trainers do, must equal the embedding.

    Raises:
        MismatchError: it does not.
    """
    if how := tied_fault(reader, embedding, output):
        raise no_copy(shown(output), how)


def tied_fault(reader: ChunkReader, embedding: str, output: str) -> str:
    """How a tied model's output layer differs from the embedding, in words; "" where it is a copy."""
    ours, theirs = reader.specs[embedding], reader.specs[output]
    if (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype):
        return unequal(reader, embedding, reader, output)
    return f"{list(ours.shape)} {ours.dtype} and {list(theirs.shape)} {theirs.dtype}"


def difference(first_path: str, first: ItemTensor, second_path: str, second: ItemTensor) -> str:
    """How two copies of a tensor differ, in words; "" when they are equal.

    The zip's own checksums answer for whole storages without reading them.
    """
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return f"{first.dtype} {list(first.shape)} and {second.dtype} {list(second.shape)}"
    views = [(t.start, t.strides, t.nbytes) for t in (first, second)]
    if first.crc and first.crc == second.crc and views[0] == views[1]:
        return ""
    return unequal(_reader(first_path, first), "", _reader(second_path, second), "")


def unequal(a: ChunkReader, first: str, b: ChunkReader, second: str) -> str:
    """How two tensors of one shape and dtype differ, in words; "" when they are equal.

    Reads both, a bounded part at a time.
    """
    count, largest, dtype = 0, None, a.specs[first].dtype
    for ours, theirs in zip(_blocks(a, first), _blocks(b, second), strict=True):
        if differing := int((ours != theirs).sum()):
            count += differing
            gap = largest_difference(ours, theirs, dtype)
            largest = gap if largest is None else max(largest, gap or 0.0)
    if not count:
        return ""
    return f"{count} of {prod(a.specs[first].shape)} elements" + (
        f", by at most {largest:.3g}" if largest is not None else ""
    )


def stored_checksum(tensor: ItemTensor) -> int | None:
    """The CRC-32 of a tensor's numbers, row by row, that its file states; None where it states none, or of more."""
    alone = not tensor.start and tensor.strides is None and prod(tensor.shape) * ITEMSIZE[tensor.dtype] == tensor.nbytes
    return tensor.crc if alone else None


def checksum(path: str, tensor: ItemTensor) -> int:
    """The CRC-32 of a tensor's numbers, row by row: the stored one, else they are read."""
    found = stored_checksum(tensor)
    if found is None:
        found = 0
        for block in _blocks(_reader(path, tensor), ""):
            found = crc32(memoryview(block.reshape(-1)).cast("B"), found)
    return found


def _reader(path: str, tensor: ItemTensor) -> ChunkReader:
    """A reader of one tensor, called ""."""
    shape = tensor.shape or (1,)
    extent = Extent(path, tensor.data_offset, tensor.nbytes)
    chunk = Chunk((0,) * len(shape), shape, 0, tensor.start, tensor.strides or row_major(shape))
    return ChunkReader({"": TensorSpec("", shape, tensor.dtype)}, {"": [chunk]}, lambda _: extent)


def _blocks(reader: ChunkReader, name: str) -> Iterator[Array]:
    """A tensor's numbers, a bounded part of its first axis at a time."""
    import numpy as np

    _, shape, dtype = reader.specs[name]
    rows = max(1, BLOCK // max(1, prod(shape[1:]) * ITEMSIZE[dtype]))
    for first in range(0, shape[0], rows):
        lengths = (min(rows, shape[0] - first), *shape[1:])
        out = np.empty(lengths, storage(dtype))
        reader.read_into(Box(name, (first, *(0,) * (len(shape) - 1)), lengths), out)
        yield out
