"""The files of a source: found, opened and read.

What the system does not let us read is told as such, and blamed on no file.
"""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, BinaryIO

from ..errors import CorruptError, ReadError, shown, shown_path

ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What the system says where there is no such file; a broken link is none."""

HINTS = {
    errno.EMFILE: "This process may open no more files: raise its limit (ulimit -n), and try again.",
    errno.ENFILE: "The whole machine has too many files open: try again when it has less to do.",
    errno.EACCES: "Its permissions, or those of a folder above it, do not let this user read it: change them.",
    errno.EPERM: "Its permissions, or those of a folder above it, do not let this user read it: change them.",
    errno.EIO: "The disk or the network share under it fails: see dmesg, and copy the file elsewhere.",
    errno.ESTALE: "The network share was mounted anew, or the file replaced on its server: try again.",
    errno.ETIMEDOUT: "The network share under it does not answer: try again once it does.",
    errno.ENOENT: "It was there when the run began: does something else remove old checkpoints?",
}

MOST = 1024
"""Descriptors that a reader holds at most: those of a checkpoint of 512 ranks, two files each."""

SOFT_LIMIT = 4 * MOST
"""The limit on open files that we ask for; two readers at once, and whatever else the process does, fit below it."""

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK  # a fifo must not make us wait for ever

noted: ContextVar[Callable[[str, os.stat_result], None] | None] = ContextVar("noted", default=None)
"""Who is told of every file that is opened, with what the system says of the open file; see seen_files.py."""


@contextmanager
def unnoted() -> Iterator[None]:
    """Within it a file is read that may change afterwards without harm, so nobody is told of it."""
    token = noted.set(None)
    try:
        yield
    finally:
        noted.reset(token)


def unreadable(path: Path | str, fault: OSError) -> ReadError:
    """The error for a file that the system does not let us read."""
    reason = fault.strerror or type(fault).__name__
    return ReadError(f"{shown_path(path)} cannot be read: {reason}", HINTS.get(fault.errno or 0, ""))


@contextmanager
def reading(path: Path | str) -> Iterator[None]:
    """Within it only that file or folder is read: an OSError is about it.

    Raises:
        ReadError: in place of an OSError.
        CorruptError: no file can have that name.
    """
    try:
        yield
    except OSError as fault:
        raise unreadable(path, fault) from fault
    except ValueError as fault:
        if not _impossible(path):
            raise
        raise CorruptError(f"{shown_path(path)} is no name that a file can have") from fault


def _impossible(path: Path | str) -> bool:
    """Whether a name, out of a stranger's file, holds what the system cannot be asked for."""
    try:
        return b"\0" in os.fsencode(path)
    except UnicodeEncodeError:
        return True


def file_name(path: Path) -> str:
    """A file as messages about its content call it: its folder and its name."""
    return shown(Path(path.parent.name) / path.name)


def status(path: Path) -> os.stat_result | None:
    """What the system says of a file, links followed; None where there is none.

    Raises:
        ReadError: it does not say.
    """
    with reading(path):
        try:
            return path.stat()
        except OSError as fault:
            if fault.errno in ABSENT:
                return None
            raise


def fresh_status(path: Path) -> os.stat_result | None:
    """As `status`, but asked anew: only on opening does a network file system hold what it knows against its server."""
    try:
        fd = os.open(path, _FLAGS)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)
    except OSError:
        return status(path)


def is_file(path: Path) -> bool:
    """Whether a regular file is there. Errors as `status`."""
    found = status(path)
    return found is not None and stat.S_ISREG(found.st_mode)


def is_dir(path: Path) -> bool:
    """Whether a folder is there. Errors as `status`."""
    found = status(path)
    return found is not None and stat.S_ISDIR(found.st_mode)


def children(directory: Path) -> list[Path]:
    """What is in a folder, by name.

    Raises:
        ReadError: it cannot be listed.
    """
    with reading(directory):
        return sorted(directory.iterdir())


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open; within it only that file is read.

    Raises:
        CorruptError: it is missing, or no regular file.
        ReadError: in place of an OSError.
        ChangedError: it was open before, and is not what it was.
    """
    with reading(path):
        try:
            fd = os.open(path, _FLAGS)
        except OSError as fault:
            if fault.errno not in ABSENT:
                raise
            raise CorruptError(f"{shown_path(path)} is missing", "Copy the missing file.") from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise CorruptError(f"{shown_path(path)} is not a regular file", "Copy the file itself there.")
        with os.fdopen(fd, "rb") as file:
            if tell := noted.get():
                tell(str(path), os.fstat(fd))
            yield file


class _Held:
    """A descriptor, and how many threads are reading from it."""

    __slots__ = ("fd", "readers")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.readers = 0


class OpenFiles:
    """Files held open for reading at any place, by any number of threads: the `most` used last, and those in use.

    Args:
        most: how many; by default a quarter of what the process may open.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most = _quarter() if most is None else most
        self._tell = noted.get()  # now: the threads that read know nothing of it
        self._begin()

    def _begin(self) -> None:
        """No file is open."""
        self._held: OrderedDict[str, _Held] = OrderedDict()  # the one used last stands last
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which opens them itself."""
        return {"_tell": self._tell}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._most = _quarter()
        self._begin()

    @contextmanager
    def held(self, path: str) -> Iterator[int]:
        """A descriptor of the file, which stays open inside the context.

        Raises:
            ReadError: in place of an OSError, of opening as of reading inside.
            ChangedError: it was open before, and is not what it was.
        """
        with reading(path):
            held = self._take(path)
            try:
                yield held.fd
            finally:
                with self._lock:
                    held.readers -= 1

    def _take(self, path: str) -> _Held:
        with self._lock:
            if path in self._held:
                return self._used(path)
        fd = self._open(path)  # not under the lock: a network share may take its time
        with self._lock:
            if path in self._held:  # another thread was faster
                os.close(fd)
            else:
                self._held[path] = _Held(fd)
            held = self._used(path)
            self._close_idle(self._most)
            return held

    def _used(self, path: str) -> _Held:
        self._held.move_to_end(path)
        self._held[path].readers += 1
        return self._held[path]

    def _open(self, path: str) -> int:
        fd = self._descriptor(path)
        try:
            if self._tell:
                self._tell(path, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _descriptor(self, path: str) -> int:
        try:
            return os.open(path, _FLAGS)
        except OSError as fault:
            if fault.errno not in (errno.EMFILE, errno.ENFILE):
                raise
        with self._lock:
            self._close_idle(0)  # others need descriptors too: give back what is not in use, and try once more
        return os.open(path, _FLAGS)

    def _close_idle(self, most: int) -> None:
        """Close files that nobody reads from, those used longest ago first, until there are at most so many."""
        surplus = len(self._held) - most
        idle = [path for path, held in self._held.items() if not held.readers] if surplus > 0 else []
        for path in idle[:surplus]:
            os.close(self._held.pop(path).fd)

    def __del__(self) -> None:
        for held in self._held.values():
            with suppress(OSError):  # all was read from it, and nothing written
                os.close(held.fd)


def _quarter() -> int:
    """A quarter of the files that this process may open, after asking for as many as are of use."""
    soft, hard = (SOFT_LIMIT if n == resource.RLIM_INFINITY else n for n in resource.getrlimit(resource.RLIMIT_NOFILE))
    wanted = min(SOFT_LIMIT, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return max(1, min(MOST, max(soft, wanted) // 4))
