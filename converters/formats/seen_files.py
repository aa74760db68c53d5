"""Which source files a command opened, and that each still is what it was when it was opened first.

A trainer that is still saving, or a sync tool at work, would give a model of two halves. Held are a file's identity
(device and inode), its size and the time of its last change; what reading changes (the time of access) is not.

A command has one `SeenFiles` for each side that it opens. Which one a file belongs to is said by a context variable
(open_files.noted), because files are opened far below, by every reader of every format. Threads do not inherit it:
OpenFiles keeps what it found when it was made.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ..errors import ChangedError, SourceError, shown_path
from .file_system import is_fuse
from .open_files import fresh_status, noted

UNKNOWN = -1
"""The number of a file system on another host."""


class SeenFile(NamedTuple):
    """A file as it was when it was opened first.

    Attributes:
        path: absolute, links in it as they were given.
        dev: the number of its file system, which another mount of the same one need not have.
        ino: its inode; 0 where the file system makes up such numbers.
        size: in bytes.
        mtime_ns: of its last change.
    """

    path: str
    dev: int
    ino: int
    size: int
    mtime_ns: int


class SeenFiles:
    """The source files of one side."""

    def __init__(self) -> None:
        self._files: dict[str, SeenFile] = {}
        self._numbered: dict[int, bool] = {}

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Within it every file that this thread opens by open_files is noted."""
        token = noted.set(self.note)
        try:
            yield
        finally:
            noted.reset(token)

    def note(self, path: str, found: os.stat_result) -> None:
        """A file is open, for the first time or again.

        Raises:
            ChangedError: it is not what it was the first time.
        """
        now = self._seen(path, found)
        how = _difference(self._files.setdefault(path, now), now)
        if how:
            raise _changed(path, how)

    def __getstate__(self) -> dict[str, SeenFile]:
        """For another process, maybe on another host, where the same file system has another number."""
        return {path: seen._replace(dev=UNKNOWN) for path, seen in self._files.items()}

    def __setstate__(self, files: dict[str, SeenFile]) -> None:
        self._files, self._numbered = files, {}

    def check(self) -> None:
        """Hold every file against what it was.

        Raises:
            ChangedError: one was written to, replaced or removed.
            ReadError: the system does not say.
        """
        for path, first in list(self._files.items()):
            found = fresh_status(Path(path))
            how = "was removed" if found is None else _difference(first, self._seen(path, found))
            if how:
                raise _changed(path, how)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it the files are read: they are checked at its end.

        What fails inside because a file changed is told as that, not as damage.

        Raises:
            ChangedError: as `check`.
        """
        try:
            yield
        except SourceError:
            self.check()
            raise
        self.check()

    def joined(self, other: SeenFiles) -> SeenFiles:
        """The files of both sides, as they were when they were opened."""
        both = SeenFiles()
        both.__setstate__({**self._files, **other._files})
        return both

    def entries(self) -> list[SeenFile]:
        """All files that were seen, by path."""
        return sorted(self._files.values())

    def names_in(self, directory: Path) -> set[str]:
        """The names of those that were opened in a directory itself."""
        return {path.name for path in map(Path, self._files) if path.parent == directory}

    def _seen(self, path: str, found: os.stat_result) -> SeenFile:
        dev = found.st_dev
        if dev not in self._numbered:
            self._numbered[dev] = not is_fuse(dev)
        ino = found.st_ino if self._numbered[dev] else 0
        return SeenFile(str(Path(path).absolute()), dev, ino, found.st_size, found.st_mtime_ns)


def _difference(first: SeenFile, now: SeenFile) -> str:
    """What became of a file, in words; "" where it is the same."""
    if first.dev not in (now.dev, UNKNOWN) or first.ino != now.ino:
        return "was replaced by another file"
    if first.size != now.size:
        return f"has {now.size} bytes, and had {first.size}"
    return "was written to" if first.mtime_ns != now.mtime_ns else ""


def _changed(path: str, how: str) -> ChangedError:
    return ChangedError(f"{shown_path(path)} changed while it was read: it {how}")
