"""What was filled of an output file: the sums of its parts, and the special numbers among them."""

from __future__ import annotations

from ...formats.sums.crc import crc32, join
from ...tensors.nonfinite import Specials
from .open_file import WRITE
from .windows import Part


class Filled:
    """Parts of a file that are written, by piece of the file. Threads add theirs; processes put theirs together."""

    def __init__(self, pieces: int) -> None:
        self._sums: list[dict[int, tuple[int, int]]] = [{} for _ in range(pieces)]  # offset -> bytes, CRC-32
        self.specials = Specials()

    def add(self, part: Part, dtype: str, data: memoryview) -> None:
        """Look at the bytes of a part while they are hot."""
        self.specials.look(part.box.name, dtype, data)
        self._sums[part.piece][part.offset] = (part.nbytes, _crc(data))

    def merge(self, other: Filled) -> None:
        """Add what another process has filled of the same file."""
        for mine, theirs in zip(self._sums, other._sums, strict=True):
            mine.update(theirs)
        for name, count in other.specials.found.items():
            self.specials.add(name, count)

    @property
    def nbytes(self) -> int:
        """Bytes of all parts."""
        return sum(nbytes for runs in self._sums for nbytes, _ in runs.values())

    def pieces(self) -> list[tuple[int, int]]:
        """Bytes and CRC-32 of each piece, all of which is filled."""
        return list(map(_total, self._sums))


def _crc(data: memoryview) -> int:
    crc = 0
    for at in range(0, len(data), WRITE):
        crc = crc32(data[at : at + WRITE], crc)
    return crc


def _total(runs: dict[int, tuple[int, int]]) -> tuple[int, int]:
    total = crc = 0
    for offset in sorted(runs):
        nbytes, part = runs[offset]
        total, crc = total + nbytes, join(crc, part, nbytes)
    return total, crc
