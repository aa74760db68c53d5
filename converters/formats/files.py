"""What a format plans to write: files of known size whose bytes come from boxes of tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..tensors import Box


class Piece(NamedTuple):
    """The row-major bytes of `box` lie at byte `offset` of the file."""

    box: Box
    offset: int


@dataclass(slots=True)
class OutFile:
    """One output file.

    Attributes:
        name: its path below the output directory.
        size: bytes, known before the first is written.
        pieces: the tensors in it, in file order.
        literals: (offset, bytes) of headers and the like.
        seal: given the CRC-32 of each piece, yields the literals that hold them.
    """

    name: str
    size: int
    pieces: list[Piece] = field(default_factory=list)
    literals: list[tuple[int, bytes]] = field(default_factory=list)
    seal: Callable[[Sequence[int]], Iterable[tuple[int, bytes]]] | None = None


def cut(box: Box, offset: int, itemsize: int, limit: int) -> Iterator[tuple[Box, int]]:
    """Split a box into boxes that are contiguous in its row-major bytes, each of at most `limit` bytes where one row allows it.

    Yields:
        (box, byte offset), in order.
    """
    nbytes = box.size * itemsize
    axis = next((a for a, n in enumerate(box.lengths) if n > 1), None)
    if nbytes <= limit or axis is None:
        yield box, offset
        return
    row = nbytes // box.lengths[axis]
    step = max(1, limit // row)
    for first in range(0, box.lengths[axis], step):
        rows = min(step, box.lengths[axis] - first)
        offsets = (*box.offsets[:axis], box.offsets[axis] + first, *box.offsets[axis + 1 :])
        lengths = (*box.lengths[:axis], rows, *box.lengths[axis + 1 :])
        yield from cut(Box(box.name, offsets, lengths), offset + first * row, itemsize, limit)
