"""Output files cut into windows: what one thread fills and writes at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ...formats.output_file import Piece
from ...tensors.spec import Box
from ...tensors.tiling import cut


class Part(NamedTuple):
    """A box whose row-major bytes belong at one place of an output file."""

    piece: int  # its number in the file
    box: Box
    offset: int
    nbytes: int


def windows(pieces: Sequence[Piece], itemsizes: Iterable[int], limit: int) -> Iterator[list[Part]]:
    """Consecutive parts of a file, which reach over at most `limit` bytes of it, what lies between them included.

    A single row may be longer than that.
    """
    held: list[Part] = []
    for number, (piece, itemsize) in enumerate(zip(pieces, itemsizes, strict=True)):
        for box, offset in cut(piece.box, piece.offset, itemsize, limit):
            part = Part(number, box, offset, box.size * itemsize)
            if held and part.offset + part.nbytes - held[0].offset > limit:
                yield held
                held = []
            held.append(part)
    if held:
        yield held
