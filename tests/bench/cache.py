"""The page cache: sources put into it, or out of it, before they are read."""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Iterable
from pathlib import Path

_C = ctypes.CDLL(None, use_errno=True)
_C.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)


def warm(files: Iterable[Path]) -> None:
    """Read files once, so that as much of them as the system keeps lies in memory."""
    buffer = bytearray(1 << 20)
    for path in files:
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass


def drop(files: Iterable[Path]) -> None:
    """Let the system forget the pages of files; they are brought to the disk before, for only clean pages go."""
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def resident(files: Iterable[Path]) -> float:
    """The share of files' pages that lies in memory, from 0 to 1."""
    pages = found = 0
    for path in files:
        size = path.stat().st_size
        if not size:
            continue
        # A private mapping: the only one that ctypes takes an address of without the right to write the file.
        with path.open("rb") as file, mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY) as mapped:
            seen = ctypes.create_string_buffer(-(-size // mmap.PAGESIZE))
            first = ctypes.c_char.from_buffer(mapped)
            try:
                if _C.mincore(ctypes.addressof(first), size, seen):
                    raise OSError(ctypes.get_errno(), "mincore")
            finally:
                del first  # or the mapping cannot be closed
            pages, found = pages + len(seen), found + sum(byte & 1 for byte in seen.raw)
    return found / max(pages, 1)
