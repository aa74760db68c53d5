"""What the system refuses while an output is written: told with the file's name, and with what to do."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import TargetError, shown_path

NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file system takes no file so large",
    errno.EROFS: "it is read-only",
}

_RIGHTS = "Its permissions, or those of a folder above it, do not let this user write it: change them."
_TOO_MANY = "Too many files are open: raise the limit (ulimit -n), or try again when the machine has less to do."
HINTS = {
    errno.EIO: "The disk or the network share under it fails: see dmesg, and name a target on another one.",
    errno.ESTALE: "The network share was mounted anew, or the file replaced on its server: try again.",
    errno.ETIMEDOUT: "The network share under it does not answer: try again once it does.",
    errno.ENOTCONN: "The file system under it is gone: mount it again, and try again.",
    errno.EACCES: _RIGHTS,
    errno.EPERM: _RIGHTS,
    errno.EMFILE: _TOO_MANY,
    errno.ENFILE: _TOO_MANY,
    errno.ENOENT: "It was there a moment ago: does something else remove files there?",
}
USUAL = "See whether the disk or network share under it is in order, or name a target elsewhere."


@contextmanager
def about(path: Path | str) -> Iterator[None]:
    """An OSError inside is about that file: the system was given only a number."""
    try:
        yield
    except OSError as fault:
        if fault.filename is None:
            fault.filename = str(path)
        raise


@contextmanager
def told(place: Path) -> Iterator[None]:
    """An OSError inside is told as a target that cannot be written.

    Raises:
        TargetError: in place of it.
    """
    try:
        yield
    except OSError as fault:
        raise unwritable(fault, place) from fault


def unwritable(fault: OSError, place: Path, left: Sequence[str] = ()) -> TargetError:
    """The error for what the system refuses.

    Args:
        fault: with the name of a file, if it is about one.
        place: the directory that was to be written.
        left: sentences on what was left behind; none: nothing was.
    """
    code = fault.errno or 0
    if why := NO_ROOM.get(code):
        hint = [*(left or ["Nothing was left behind."]), "Free some room, or name a target on another disk."]
        return TargetError(f"{shown_path(place)} cannot be written: {why}", " ".join(hint))
    reason = fault.strerror or type(fault).__name__
    what = f"{shown_path(fault.filename or place)} cannot be written: {reason}"
    return TargetError(what, " ".join([*left, HINTS.get(code, USUAL)]))


def sync(path: Path) -> None:
    """Bring a file, or a directory's entries, to disk.

    Some network file systems know no fsync of directories; what they hold is theirs to keep.
    """
    with about(path):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as fault:
            if fault.errno != errno.EINVAL or not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise
        finally:
            os.close(fd)
