"""What a format plans to write: files of known size whose bytes come from boxes of tensors. And what became of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ..tensors.nonfinite import Count
from ..tensors.spec import Box


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


def small_file(name: str, data: bytes) -> OutFile:
    """A file that is written from memory."""
    return OutFile(name, len(data), literals=[(0, data)])


class WrittenFile(NamedTuple):
    """What was written of one output file.

    Attributes:
        name: its path below the output directory.
        nbytes: its size.
        crc: CRC-32 of all of it.
        pieces: CRC-32 of each piece, in the plan's order.
        specials: tensor -> its NaN and infinite numbers, of those that have some.
    """

    name: str
    nbytes: int
    crc: int
    pieces: tuple[int, ...] = ()
    specials: Mapping[str, Count] = {}
