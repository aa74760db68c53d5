"""Holes in data files: bytes that were never written and read as zeros.

A copy that was not finished, or whose room was set aside beforehand, has the right size and holes. They are looked for
only where a tensor's bytes lie and the file states no checksum of them: where it does, the checksum decides, and a hole
that agrees with it is right. Some file systems (ZFS) keep written zeros as holes, too, so one is told, not refused.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ..errors import CorruptError, shown_path, sized

if TYPE_CHECKING:
    from .chunks import Extent
    from .open_files import OpenFiles

LISTED = 3
"""Holes of a file that are named."""

FILES = 10
"""Files with holes that are told one by one."""

MOST = 1000
"""Holes of one tensor that are looked at: a hostile file may have millions."""


class Holes(NamedTuple):
    """The holes of one file, where tensors without a checksum lie.

    Attributes:
        path: the file.
        spans: first byte and the one behind the last, in the file.
    """

    path: str
    spans: list[tuple[int, int]]

    def __str__(self) -> str:
        some = ", ".join(f"{start} to {stop}" for start, stop in self.spans[:LISTED])
        more = f" and {len(self.spans) - LISTED} more" if len(self.spans) > LISTED else ""
        nbytes = sum(stop - start for start, stop in self.spans)
        return (
            f"{shown_path(self.path)}: {sized(nbytes)} that tensors need were never written and read as zeros, bytes "
            f"{some}{more}: is it a copy that was not finished?"
        )


def is_sparse(fd: int) -> bool:
    """Whether an open file has a hole anywhere; False where its file system does not say."""
    size = os.fstat(fd).st_size
    return size > 0 and _seek(fd, 0, os.SEEK_HOLE, size) < size


def has_hole(fd: int, offset: int, nbytes: int) -> bool:
    """Whether there is a hole in these bytes of an open file."""
    return _seek(fd, offset, os.SEEK_HOLE, offset + nbytes) < offset + nbytes


def find_holes(extents: Iterable[Extent], files: OpenFiles) -> list[Holes]:
    """The holes where extents without a checksum lie, by file.

    Args:
        extents: where tensors lie.
        files: opens them.

    Raises:
        ReadError: a file cannot be opened.
    """
    by_path: dict[str, list[Extent]] = {}
    for extent in extents:
        if not extent.crc and extent.nbytes:
            by_path.setdefault(extent.path, []).append(extent)
    found = []
    for path, listed in sorted(by_path.items()):
        with files.held(path) as fd:
            spans = _joined(span for extent in listed for span in _spans(fd, extent)) if is_sparse(fd) else []
        if spans:
            found.append(Holes(path, spans))
    return found


def told(found: Sequence[Holes]) -> list[str]:
    """A sentence for each file, of many for the first."""
    rest = len(found) - FILES
    return [str(one) for one in found[:FILES]] + [f"… and {rest} more files with holes in tensors"] * (rest > 0)


def refuse_holes(found: Sequence[Holes]) -> None:
    """--strict takes no files with holes.

    Raises:
        CorruptError: there are some.
    """
    if found:
        raise CorruptError("\n".join(told(found)), "Copy the file again. Without --strict it is read as it is.")


def _spans(fd: int, extent: Extent) -> Iterator[tuple[int, int]]:
    at, end = extent.offset, extent.offset + extent.nbytes
    for _ in range(MOST):
        start = _seek(fd, at, os.SEEK_HOLE, end)
        if start >= end:
            return
        at = min(_seek(fd, start, os.SEEK_DATA, end), end)
        yield start, at


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """In order, neighbours as one: a hole may lie under many tensors, and tensors share an item."""
    found: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(stop, found[-1][1]))
        else:
            found.append((start, stop))
    return found


def _seek(fd: int, at: int, how: int, end: int) -> int:
    """The next hole or data from a byte on; `end` where there is none, or no such question."""
    try:
        return os.lseek(fd, at, how)
    except OSError as fault:
        if fault.errno in (errno.ENXIO, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP):
            return end
        raise
