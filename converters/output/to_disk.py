"""Everything that was written is brought to disk: several files at once, and it is told how far that is.

A large file goes there piece by piece at first, so that a slow disk is seen to work and Ctrl-C need not wait for all of
it. The system's promise is only in the fsync at the end of each.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ..crew import Job, share
from ..report import Observer, Phase, tell_phase
from .faults import about, sync

AT_ONCE = 8
"""Files, or pieces of them. A file system brings many to disk in the time of one, and network shares above all."""

PIECE = 64 << 20
"""Bytes."""

_ALL = 0b111
"""Of sync_file_range(2): wait for what is under way, begin the rest, and wait for that."""


def bring_to_disk(root: Path, observer: Observer) -> None:
    """Bring every file and directory below `root` to disk, what is inside a directory before it.

    Args:
        root: the directory.
        observer: told of the phase, and of the bytes of files.

    Raises:
        OSError: with the name of the file.
    """
    folders, files = list[Path](), list[_File]()
    for folder, _, names in os.walk(root, topdown=False, onerror=_raise):
        folders.append(Path(folder))
        paths = (Path(folder, name) for name in names)
        files += [_File(path, path.stat().st_size) for path in paths if not path.is_symlink()]
    total = sum(file.nbytes for file in files)
    tell_phase(observer, Phase.BRINGING_TO_DISK)
    share(_jobs(files), AT_ONCE, lambda: observer.progress(sum(file.done for file in files), total))
    for path in folders:
        sync(path)


@dataclass(slots=True)
class _File:
    """A file on its way to disk.

    Attributes:
        nbytes: its size.
        pieces: bytes of each piece that is there.
        synced: all of it is there, for good.
    """

    path: Path
    nbytes: int
    pieces: list[int] = field(default_factory=list)
    synced: bool = False

    @property
    def done(self) -> int:
        """Bytes that are there."""
        return self.nbytes if self.synced else sum(self.pieces)

    def push(self, call: Callable[..., int], at: int) -> None:
        """Bring a piece there."""
        with about(self.path), open(self.path, "rb") as file:
            nbytes = min(PIECE, self.nbytes - at)
            if call(file.fileno(), at, nbytes, _ALL):
                raise OSError(code := ctypes.get_errno(), os.strerror(code))
            self.pieces.append(nbytes)

    def sync(self) -> None:
        """Bring all of it there."""
        sync(self.path)
        self.synced = True


def _jobs(files: list[_File]) -> Iterator[Job]:
    for file in files:
        if file.nbytes > PIECE and (call := _sync_file_range(file.path)):
            yield from (partial(file.push, call, at) for at in range(0, file.nbytes, PIECE))
        yield file.sync


def _sync_file_range(path: Path) -> Callable[..., int] | None:
    """The system's function; None where it has none for that file.

    It is tried first with nothing to do: what it says later is of the disk, and said only once.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    with open(path, "rb") as file:
        return call if call(file.fileno(), 0, 0, 0) == 0 else None


def _raise(fault: OSError) -> None:
    raise fault
