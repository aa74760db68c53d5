"""An output file while it is open: threads write to it, one at a time, and none once it is closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ...errors import TargetError, shown_path

WRITE = 1 << 20
"""Bytes per write: one large buffered write costs several times what small ones do."""


class OpenFile:
    """A new file of known size.

    A closed file's number may belong to a stranger's file a moment later. So the lock that a thread writes under is
    taken to close the file, too: whatever ends a run, Ctrl-C among them, a write that has begun finds its file open,
    and a later one is refused. (One writer at a time costs nothing: the kernel's own lock on a file makes a second one
    spin, and its reading overlaps anyway.)

    Args:
        path: where; nothing may be there.
        size: bytes.

    Raises:
        OSError: with the name of the file, as from `write`.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._turn = threading.Lock()
        self._closed = False
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with self._named():
                os.truncate(self._fd, size)
        except BaseException:
            self.close()
            raise

    def write(self, runs: Iterable[tuple[int, memoryview]]) -> None:
        """Write bytes, each run at its offset.

        Raises:
            TargetError: the system takes no more of them.
            ValueError: the file is closed.
        """
        with self._turn, self._named():
            if self._closed:
                raise ValueError(f"{self._path} is closed")
            for offset, data in runs:
                self._put(data, offset)

    def close(self) -> None:
        """Wait for the write that has begun, and close the file: a network share may tell only then what it lost."""
        with self._turn, self._named():
            self._closed = True
            os.close(self._fd)

    def _put(self, data: memoryview, start: int) -> None:
        for first in range(0, len(data), WRITE):
            piece, at = data[first : first + WRITE], start + first
            while piece:
                done = os.pwrite(self._fd, piece, at)
                if not done:
                    raise TargetError(
                        f"{shown_path(self._path)}: of {len(piece)} bytes at byte {at} the system wrote none, and "
                        "named no fault",
                        "See whether the disk or network share under it is in order, or name a target elsewhere.",
                    )
                piece, at = piece[done:], at + done
        # Starts write-back now, so that the final sync finds little left to do.
        if len(data) >= WRITE and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, start, len(data), os.POSIX_FADV_DONTNEED)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Tell which file an OSError is about: the system was given only a number."""
        try:
            yield
        except OSError as fault:
            fault.filename = str(self._path)
            raise
