"""What was written is read again from the disk itself, for disks that lie: --read-back."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

from ...errors import TargetError, shown_path
from ...formats.output_file import WrittenFile
from ...formats.sums.crc import crc32
from ...report import Observer
from ..faults import about, sync

BLOCK = 8 << 20
"""Bytes of one read: a multiple of any disk's blocks, as O_DIRECT asks for."""


def read_back(root: Path, written: Iterable[WrittenFile], observer: Observer) -> bool:
    """Read every file again after it was brought to disk, and hold its checksum against what was meant to be written.

    The system's own copy in memory is passed by (O_DIRECT) where the file system knows how, else given up first.

    Returns:
        whether it was passed by for every file.

    Raises:
        TargetError: other bytes came back; names the file.
        OSError: with the name of the file.
    """
    files, passed_by = list(written), True
    total, done = sum(file.nbytes for file in files), 0
    buffer = memoryview(mmap.mmap(-1, BLOCK))  # begins at a page, as O_DIRECT asks for
    for file in files:
        path = root / file.name
        sync(path)
        size, crc, direct = _sum(path, buffer)
        passed_by = passed_by and direct
        if (size, crc) != (file.nbytes, file.crc):
            raise TargetError(
                f"{shown_path(path)}: other bytes came back than were written: {size} with CRC-32 {crc:08x} instead "
                f"of {file.nbytes} with {file.crc:08x}",
                "The disk, or the network share under it, does not keep what it is given: write elsewhere.",
            )
        done += file.nbytes
        observer.progress(done, total)
    return passed_by


def _sum(path: Path, buffer: memoryview) -> tuple[int, int, bool]:
    """Bytes and CRC-32 of a file, and whether they came past the system's memory."""
    with about(path):
        fd, direct = _opened(path)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            size, crc, at = os.fstat(fd).st_size, 0, 0
            while at < size:
                try:
                    got = os.preadv(fd, [buffer], at)
                except OSError as fault:
                    if not direct or fault.errno != errno.EINVAL:
                        raise
                    os.close(fd)
                    fd, direct = os.open(path, os.O_RDONLY | os.O_CLOEXEC), False
                    continue
                if not got:
                    break
                crc, at = crc32(buffer[:got], crc), at + got
            return at, crc, direct
        finally:
            os.close(fd)


def _opened(path: Path) -> tuple[int, bool]:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT), True
    except OSError as fault:
        if fault.errno != errno.EINVAL:
            raise
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC), False
