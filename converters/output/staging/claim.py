"""Our marker in a directory, and the lock on it: no other run touches what is written there."""

from __future__ import annotations

import fcntl
import json
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...errors import TargetError, shown_path
from ...formats.directory.unfinished import MARKER
from ..faults import about


class Note(NamedTuple):
    """What the marker says before an output takes its place, for the run that comes after a kill.

    Attributes:
        installed: inode of the directory that is about to take the place.
        sets_latest: whether the tracker file is to name it then.
        latest: what the tracker file said until now; None where there was none.
    """

    installed: int
    sets_latest: bool = False
    latest: str | None = None


class Claim:
    """The marker and its lock."""

    def __init__(self, fd: int, folder: Path) -> None:
        self._fd = fd
        self._path = folder / MARKER

    @classmethod
    def new(cls, folder: Path) -> Claim:
        """Make the directory, and mark it."""
        try:
            folder.mkdir()
            # Nobody else may write it, whatever the umask: it says what a later run does with the directory.
            fd = os.open(folder / MARKER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError:
            raise _busy(folder) from None
        except OSError as fault:
            with suppress(OSError):
                folder.rmdir()
            raise TargetError(
                f"{shown_path(folder)} cannot be made: {fault.strerror}", "Name a target elsewhere."
            ) from fault
        claim = cls(fd, folder)
        try:
            _lock(fd, folder)
        except BaseException:
            claim.release()
            raise
        return claim

    @classmethod
    def take(cls, folder: Path) -> Claim | None:
        """The claim of a run that is gone; None where there is no marker.

        Raises:
            TargetError: that run is still at work, it was another user's, or it cannot be told.
        """
        try:
            fd = os.open(folder / MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as fault:
            raise TargetError(
                f"{shown_path(folder / MARKER)} cannot be opened: {fault.strerror}",
                f"Remove {shown_path(folder)} if no other run is writing it.",
            ) from fault
        claim = cls(fd, folder)
        try:
            _check_ours(folder, os.fstat(fd))
            if not _lock(fd, folder):
                raise TargetError(
                    f"{shown_path(folder)} cannot be locked on this file system, so another run may still be writing "
                    "it",
                    f"If none is, remove {shown_path(folder)}.",
                )
            if os.fstat(fd).st_nlink == 0:  # that run finished between our open and our lock
                raise _busy(folder)
        except BaseException:
            claim.release()
            raise
        return claim

    @property
    def note(self) -> Note | None:
        """What the marker says; None: nothing that can be read."""
        with suppress(ValueError, TypeError), about(self._path):
            installed, sets_latest, latest = Note(**json.loads(os.pread(self._fd, 4096, 0)))
            if type(installed) is int and type(sets_latest) is bool and isinstance(latest, str | None):
                return Note(installed, sets_latest, latest)
        return None

    @note.setter
    def note(self, note: Note) -> None:
        with about(self._path):
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, json.dumps(note._asdict()).encode(), 0)
            os.fsync(self._fd)

    def release(self) -> None:
        """Give up the lock."""
        with suppress(OSError):
            os.close(self._fd)


def _check_ours(folder: Path, marker: os.stat_result) -> None:
    """What another user wrote is not taken over: its owner could change it afterwards.

    Raises:
        TargetError: the directory or its marker is another user's.
    """
    if {marker.st_uid, folder.lstat().st_uid} != {os.geteuid()} or not stat.S_ISREG(marker.st_mode):
        raise TargetError(
            f"{shown_path(folder)} was left by a run of another user, and is not taken over",
            "Name another target, or have it removed by whom it belongs to.",
        )


def _lock(fd: int, folder: Path) -> bool:
    """Lock the marker; False where the file system has no locks."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _busy(folder) from None
    except OSError:
        return False
    return True


def _busy(folder: Path) -> TargetError:
    return TargetError(f"another run is writing {shown_path(folder)}", "Wait for it to end, or name another target.")
