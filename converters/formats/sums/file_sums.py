"""CRC-32 sums of whole files."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...errors import CorruptError, shown_path
from ..open_files import opened
from .crc import crc32, join

PART = 64 << 20
"""Bytes that one thread sums at a time."""

BLOCK = 1 << 20


def file_crc(path: Path, pool: ThreadPoolExecutor, progress: Callable[[int], None] = lambda nbytes: None) -> int:
    """The CRC-32 of a file.

    Args:
        path: a regular file.
        pool: threads, of which each sums a part.
        progress: told of the bytes of each part.

    Raises:
        CorruptError: it is missing, no regular file, or becomes shorter meanwhile.
        ReadError: the system does not let it be read.
    """
    with opened(path) as file:
        fd = file.fileno()
        size = os.fstat(fd).st_size
        starts = range(0, size, PART)
        total = 0
        for start, crc in zip(
            starts, pool.map(lambda at: _part(fd, at, min(PART, size - at), path), starts), strict=True
        ):
            nbytes = min(PART, size - start)
            total = join(total, crc, nbytes)
            progress(nbytes)
    return total


def _part(fd: int, start: int, nbytes: int, path: Path) -> int:
    buffer, crc, at = memoryview(bytearray(min(BLOCK, nbytes))), 0, 0
    while at < nbytes:
        got = os.preadv(fd, [buffer[: min(BLOCK, nbytes - at)]], start + at)
        if not got:
            raise CorruptError(f"{shown_path(path)} became shorter while it was read")
        crc, at = crc32(buffer[:got], crc), at + got
    return crc
