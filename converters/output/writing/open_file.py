"""An output file while it is open: threads write to it, and none once it is closed."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from ...errors import TargetError, shown_path
from .buffers import PAGE

WRITE = 1 << 20
"""Bytes per write through the system's memory: one large write costs several times what small ones do."""

DIRECT = 1 << 16
"""Bytes from which on a write past the system's memory pays."""


class OpenFile:
    """An output file, for writing alone.

    A closed file's number may belong to a stranger's file a moment later. So closing it waits for the writes that have
    begun, and later ones are refused, whatever ends a run, Ctrl-C among them.

    Whoever could read it, too, would be given whole pages by a network file system where a part of one is written, and
    would write back what another host may have written there meanwhile.

    Args:
        path: where.
        size: bytes of a new file; nothing may be there. None: the file is there.
        direct: write whole pages past the system's memory (O_DIRECT) where the file system lets us. Memory to write
            must then begin in its page where it belongs in the file's (see Buffers).

    Raises:
        OSError: with the name of the file, as from `write`.
    """

    def __init__(self, path: Path, size: int | None, *, direct: bool = False) -> None:
        self._path = path
        self._idle = threading.Condition()
        self._writing = 0
        self._closed = False
        self._turn = threading.Lock()
        self._past: int | None = None  # the same file, opened to pass the system's memory by
        how = os.O_NOFOLLOW if size is None else os.O_CREAT | os.O_EXCL
        self._fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | how, 0o666)
        try:
            with self._named():
                if size is not None:
                    os.truncate(self._fd, size)
                self._past = _past_memory(path) if direct else None
        except BaseException:
            self.close()
            raise

    def write(self, runs: Iterable[tuple[int, memoryview]]) -> None:
        """Write bytes, each run at its offset.

        Raises:
            TargetError: the system takes no more of them.
            ValueError: the file is closed.
        """
        with self._kept_open(), self._named():
            for offset, data in runs:
                first = -offset % PAGE
                if self._past is None or len(data) - first < DIRECT:
                    self._through(data, offset)
                else:
                    last = first + self._pages(self._past, data[first:], offset + first)
                    self._through(data[:first], offset)
                    self._through(data[last:], offset + last)

    def sync(self) -> None:
        """Bring to disk what was written from here."""
        with self._kept_open(), self._named():
            os.fsync(self._fd)

    def close(self) -> None:
        """Wait for the writes that have begun, and close the file: a network share may tell only then what it lost.

        Once it is closed, or another thread is about it, nothing is done.
        """
        with self._idle:
            if self._closed:
                return
            self._closed = True
            while self._writing:
                self._idle.wait()
        with self._named():
            past, self._past = self._past, None
            if past is not None:
                os.close(past)
            os.close(self._fd)

    def _pages(self, past: int, data: memoryview, start: int) -> int:
        """Write whole pages past the system's memory; tells how many bytes it took, 0 where it knows no such way."""
        try:
            return os.pwrite(past, data[: len(data) // PAGE * PAGE], start)
        except OSError as fault:
            if fault.errno != errno.EINVAL:
                raise
            return 0

    def _through(self, data: memoryview, start: int) -> None:
        """Write through the system's memory.

        Much of it one thread at a time: the kernel's own lock on a file makes a second one spin.
        """
        with self._turn if len(data) >= DIRECT else nullcontext():
            for first in range(0, len(data), WRITE):
                self._all(data[first : first + WRITE], start + first)
        # Starts write-back now, so that the final sync finds little left to do.
        if len(data) >= WRITE and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, start, len(data), os.POSIX_FADV_DONTNEED)

    def _all(self, piece: memoryview, at: int) -> None:
        while piece:
            done = os.pwrite(self._fd, piece, at)
            if not done:
                raise TargetError(
                    f"{shown_path(self._path)}: of {len(piece)} bytes at byte {at} the system wrote none, and "
                    "named no fault",
                    "See whether the disk or network share under it is in order, or name a target elsewhere.",
                )
            piece, at = piece[done:], at + done

    @contextmanager
    def _kept_open(self) -> Iterator[None]:
        """Inside, the file is not closed.

        Raises:
            ValueError: it is.
        """
        with self._idle:
            if self._closed:
                raise ValueError(f"{self._path} is closed")
            self._writing += 1
        try:
            yield
        finally:
            with self._idle:
                self._writing -= 1
                self._idle.notify_all()

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Tell which file an OSError is about: the system was given only a number."""
        try:
            yield
        except OSError as fault:
            fault.filename = str(self._path)
            raise


def _past_memory(path: Path) -> int | None:
    """The file, opened so that writing passes the system's memory by; None where the file system knows no such way."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError as fault:
        if fault.errno != errno.EINVAL:
            raise
        return None
