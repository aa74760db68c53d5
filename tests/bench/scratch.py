"""A directory for the files of a run: made only where there is room for them, and gone afterwards whatever comes."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .machine import available_memory, file_system, in_memory

PREFIX = "vlconv-bench-"
PROGRAMS = 2 << 30
"""Bytes of memory that must be left where the files lie in memory, too."""


class NoRoom(Exception):
    """The disk has less room than the files need."""


@contextmanager
def scratch(parent: Path, need: int) -> Iterator[Path]:
    """A new directory in `parent`.

    Args:
        parent: where to make it.
        need: bytes that will lie in it at most.

    Raises:
        NoRoom: before anything is written.
    """
    check_room(parent, need)
    before = {number: signal.signal(number, _ended) for number in (signal.SIGTERM, signal.SIGHUP)}
    directory = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        yield directory
    finally:
        # It takes a moment, and a second Ctrl-C would leave the rest.
        before |= {number: signal.signal(number, signal.SIG_IGN) for number in (*before, signal.SIGINT)} | before
        shutil.rmtree(directory)
        for number, handler in before.items():
            signal.signal(number, handler)


def check_room(parent: Path, need: int) -> None:
    """Raises NoRoom, which says what is needed."""
    disk = os.statvfs(parent)
    free, kind = disk.f_bavail * disk.f_frsize, file_system(parent)
    if in_memory(parent):
        free = min(free, available_memory() - PROGRAMS)
    if need > free:
        raise NoRoom(
            f"{parent} ({kind}) has room for {max(free, 0) / 1e9:.1f} GB, and {need / 1e9:.1f} GB are needed: "
            "name another directory with --work, or a smaller model with --layers or --quick"
        )


def _ended(number: int, _frame: object) -> None:
    sys.exit(128 + number)
