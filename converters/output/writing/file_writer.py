"""One output file, or a share of it: its windows are filled and written in any order, by any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

from ...formats.output_file import Piece
from ...tensors.dtypes import ITEMSIZE, storage
from ...tensors.spec import Box, Reader
from .buffers import Buffers
from .filled import Filled
from .open_file import OpenFile
from .windows import Part, windows

Last = TypeVar("Last")


class Done(NamedTuple, Generic[Last]):
    """What a job has done.

    Attributes:
        nbytes: of tensors that it wrote.
        last: what became of the file, where that was the last of it.
    """

    nbytes: int = 0
    last: Last | None = None


Job = Callable[[], Done[Last]]
"""A window to fill and write."""


class FileWriter(Generic[Last]):
    """Writes a file from a reader.

    Args:
        reader: the tensors.
        pieces: of the file.
        opening: opens the file.
        last: called by the thread that wrote the last window, with the file and what was filled of it.
        buffers: the threads' memory.
        span: bytes of the file; the windows that begin in them are filled, and no others. None: all are.
    """

    def __init__(
        self,
        reader: Reader,
        pieces: Sequence[Piece],
        opening: Callable[[], OpenFile],
        last: Callable[[OpenFile, Filled], Last],
        buffers: Buffers,
        span: range | None = None,
    ) -> None:
        self._reader, self._pieces, self._buffers, self._span = reader, pieces, buffers, span
        self._opening, self._last = opening, last
        self._out: OpenFile | None = None
        self._lock = threading.Lock()
        self._left = 0
        self._filled = Filled(len(pieces))

    def jobs(self) -> Iterator[Job[Last]]:
        """Open the file, and its jobs, one after another; each is to be called once.

        Raises:
            OSError: with the name of the file, as from every job.
        """
        out = self._out = self._opening()
        listed = list(windows(self._pieces, map(self._itemsize, self._pieces), self._buffers.nbytes))
        if (span := self._span) is not None:
            listed = [parts for parts in listed if parts[0].offset in span]
        self._left = len(listed)
        if not listed:
            yield lambda: Done(last=self._end(out))
        for parts in listed:
            yield partial(self._window, out, parts)

    def close(self) -> None:
        """Let no thread write to the file any more."""
        out, self._out = self._out, None
        if out is not None:
            out.close()

    def _window(self, out: OpenFile, parts: list[Part]) -> Done[Last]:
        begin, end = parts[0].offset, parts[-1].offset + parts[-1].nbytes
        buffer = self._buffers.at(begin, end - begin)
        for part in parts:
            data = buffer[part.offset - begin : part.offset - begin + part.nbytes]
            fill(self._reader, part.box, data)
            self._filled.add(part, self._reader.specs[part.box.name].dtype, data)
        out.write((first, buffer[first - begin : last - begin]) for first, last in _runs(parts))
        with self._lock:
            self._left -= 1
            left = self._left
        return Done(sum(part.nbytes for part in parts), None if left else self._end(out))

    def _end(self, out: OpenFile) -> Last:
        last = self._last(out, self._filled)
        self.close()
        return last

    def _itemsize(self, piece: Piece) -> int:
        return ITEMSIZE[self._reader.specs[piece.box.name].dtype]


def _runs(parts: list[Part]) -> Iterator[tuple[int, int]]:
    """Begin and end, in the file, of parts that lie end to end."""
    begin = end = parts[0].offset
    for part in parts:
        if part.offset != end:
            yield begin, end
            begin = part.offset
        end = part.offset + part.nbytes
    yield begin, end


def fill(reader: Reader, box: Box, data: memoryview) -> None:
    """Read a box into its row-major bytes."""
    import numpy as np

    reader.read_into(box, np.frombuffer(data, dtype=storage(reader.specs[box.name].dtype)).reshape(box.lengths))
