"""CRC-32 sums of items, put together from the runs in which an item was read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from ...errors import CorruptError, shown_path

if TYPE_CHECKING:
    from ..chunks import Extent

_BLOCK = 1 << 20


def crc32(data: memoryview | bytes, value: int = 0) -> int:
    """zlib's CRC-32, at memory speed."""
    from isal import isal_zlib

    return int(isal_zlib.crc32(data, value))


def join(first: int, second: int, second_length: int) -> int:
    """The CRC-32 of two runs laid end to end."""
    from isal import isal_zlib

    return int(isal_zlib.crc32_combine(first, second, second_length))


def laid_out(nbytes: int, runs: Iterable[tuple[int, int, int]]) -> int:
    """The CRC-32 of a file of which runs are known: (offset, bytes, CRC-32). What lies between them is zero."""
    total, at = 0, 0
    for offset, length, crc in sorted(runs):
        total = join(join(total, _zeros(offset - at), offset - at), crc, length)
        at = offset + length
    return join(total, _zeros(nbytes - at), nbytes - at)


def _zeros(count: int) -> int:
    """The CRC-32 of that many zero bytes."""
    total, block = 0, crc32(bytes(min(count, _BLOCK)))
    for _ in range(count // _BLOCK):
        total = join(total, block, _BLOCK)
    return join(total, crc32(bytes(count % _BLOCK)), count % _BLOCK)


class _Runs:
    """The summed runs of one item; neighbours are joined as they come."""

    __slots__ = ("again", "by_start", "starts")

    def __init__(self) -> None:
        self.by_start: dict[int, tuple[int, int]] = {}  # start -> (end, crc)
        self.starts: dict[int, int] = {}  # end -> start
        self.again: list[Run] = []  # begin where another one does, and are another run

    def add(self, start: int, end: int, crc: int) -> None:
        if start in self.by_start:
            if self.by_start[start] != (end, crc):
                self.again.append((start, end, crc))
            return
        before = self.starts.pop(start, None)
        if before is not None:
            crc, start = join(self.by_start.pop(before)[1], crc, end - start), before
        after = self.by_start.pop(end, None)
        if after is not None:
            crc, end = join(crc, after[1], after[0] - end), after[0]
        self.by_start[start] = (end, crc)
        self.starts[end] = start

    def all(self) -> list[Run]:
        """Every run, in order."""
        return sorted([*((start, end, crc) for start, (end, crc) in self.by_start.items()), *self.again])


Run = tuple[int, int, int]
"""Begin and end of a run in its item, in bytes, and its CRC-32."""


class Sums:
    """What was summed of each item so far; an item read in order costs one entry."""

    def __init__(self, known: Mapping[int, Iterable[Run]] | None = None) -> None:
        self._runs: dict[int, _Runs] = {}
        self._changed: set[int] = set()
        self._lock = threading.Lock()
        for item, runs in (known or {}).items():
            self.put(item, runs)
        self._changed.clear()

    def items(self) -> list[int]:
        """Every item of which something was read, in order."""
        return sorted(self._runs)

    def add(self, item: int, start: int, data: memoryview) -> None:
        """Note that `data` was read from byte `start` of an item."""
        crc, end = crc32(data), start + len(data)
        with self._lock:
            self._runs.setdefault(item, _Runs()).add(start, end, crc)
            self._changed.add(item)

    def put(self, item: int, runs: Iterable[Run]) -> None:
        """Note runs that were summed elsewhere."""
        with self._lock:
            for start, end, crc in runs:
                self._runs.setdefault(item, _Runs()).add(start, end, crc)
                self._changed.add(item)

    def drain(self) -> dict[int, list[Run]]:
        """All runs; from here on none of them is known."""
        with self._lock:
            runs, self._runs, self._changed = self._runs, {}, set()
        return {item: found.all() for item, found in runs.items()}

    def changes(self) -> dict[int, list[Run]]:
        """The runs of every item of which something was read since the last call."""
        with self._lock:
            changed, self._changed = sorted(self._changed), set()
            return {item: self._runs[item].all() for item in changed}

    def check(self, item: int, extent: Extent, pread: Callable[[Extent, int, memoryview], None]) -> None:
        """Join the runs of an item, reading what lies between them, and compare.

        Of what was read several times every reading is checked: any of them may have been given bad bytes.

        Raises:
            CorruptError: the sum is not the one the file states.
        """
        for runs in _readings(self._runs.pop(item).all()):
            total, at = 0, 0
            for start, end, crc in runs:
                if start > at:  # a gap
                    total = join(total, self._reread(extent, at, start, pread), start - at)
                total, at = join(total, crc, end - start), end
            if at < extent.nbytes:
                total = join(total, self._reread(extent, at, extent.nbytes, pread), extent.nbytes - at)
            if total != extent.crc:
                raise CorruptError(
                    f"{shown_path(extent.path)}: bytes {extent.offset} to {extent.offset + extent.nbytes} are damaged: "
                    f"CRC-32 {total:08x} where the file states {extent.crc:08x}",
                    "The file is corrupt: copy it again from where it was saved.",
                )

    @staticmethod
    def _reread(extent: Extent, start: int, stop: int, pread: Callable[[Extent, int, memoryview], None]) -> int:
        buffer, crc = memoryview(bytearray(min(_BLOCK, stop - start))), 0
        for at in range(start, stop, _BLOCK):
            piece = buffer[: min(_BLOCK, stop - at)]
            pread(extent, at, piece)
            crc = crc32(piece, crc)
        return crc


def _readings(runs: list[Run]) -> Iterator[list[Run]]:
    """The runs dealt out so that in none of the lists two of them overlap; in order."""
    while runs:
        reading: list[Run] = []
        left: list[Run] = []
        for run in runs:
            (left if reading and run[0] < reading[-1][1] else reading).append(run)
        yield reading
        runs = left
