"""How what was written takes its place in one step, and how a run puts right what a killed one left.

An output is written in a staging directory beside its place:

    out.partial/.vlconv-partial    the marker, locked as long as the run lives
    out.partial/journal            which files of it are finished (journal.py)
    out.partial/new                what is written
    out.partial/old                what it replaces: for a moment, where the file system cannot exchange directories

Before the step the marker notes the inode of the directory that is about to take the place. So every state that a kill
can leave explains itself, and `conclude` brings it to an end:

    the place is not the noted directory        unfinished: what was written goes, or is gone on with
    no place, but old and what was written      killed between two renames: old is put back
    the place is the noted directory            done, but for the tracker file: it is set if it was to be, the rest goes
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ...errors import TargetError, shown_path
from ...formats.directory.locate import TRACKER, tracker_word
from ...formats.directory.unfinished import MARKER
from ..faults import sync
from .claim import Claim

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
TAKEN = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR, errno.EISDIR)


@dataclass(frozen=True)
class Step:
    """What takes which place in the end.

    Attributes:
        place: the directory that appears.
        staging: beside it, for as long as it is written.
        part: the folder of what is written that takes the place; "": all of it.
    """

    place: Path
    staging: Path
    part: str = ""

    @property
    def new(self) -> Path:
        """Where the output is written."""
        return self.staging / "new"

    @property
    def written(self) -> Path:
        """What takes the place."""
        return self.new / self.part

    @property
    def old(self) -> Path:
        """Where the replaced directory lies between two renames."""
        return self.staging / "old"


def swap(step: Step, *, replaces: bool) -> None:
    """Give what was written its place, in one step where the file system can.

    Raises:
        TargetError: something is there now that is not to be replaced.
    """
    if not replaces:
        _rename(step)
    elif not exchange(step.written, step.place):
        _two_renames(step)
    sync(step.place.parent)


def conclude(step: Step, claim: Claim) -> bool:
    """Finish an output that has taken its place; else put back what it was to replace.

    Returns:
        whether it has taken its place.
    """
    note = claim.note
    if note and os.path.lexists(step.place) and step.place.lstat().st_ino == note.installed:
        save_directory = step.place.parent
        if note.sets_latest and (step.new / TRACKER).is_file() and tracker_word(save_directory) == note.latest:
            (step.new / TRACKER).replace(save_directory / TRACKER)
            sync(save_directory)
        return True
    if step.old.is_dir() and step.written.is_dir() and not os.path.lexists(step.place):
        step.old.rename(step.place)
        sync(step.place.parent)
    return False


def recover(step: Step, goes_on: Callable[[Step], bool] = lambda step: False) -> Claim | None:
    """Put right what a killed run left in the staging directory, and remove it; one that is not ours stays.

    Args:
        step: whose staging directory.
        goes_on: whether what was written there, unfinished, is to be gone on with.

    Returns:
        the claim on the staging directory where that is so, None where nothing of ours is there any more.

    Raises:
        TargetError: another run is at work, or it was another user's.
    """
    if not os.path.lexists(step.staging):
        return None
    claim = None if step.staging.is_symlink() else Claim.take(step.staging)
    if claim is None:
        with suppress(OSError):
            step.staging.rmdir()  # empty: that run was killed before its marker, or after
        return None
    kept = False
    try:
        kept = not conclude(step, claim) and step.new.is_dir() and goes_on(step)
        if not kept:
            _discard(step.staging)
    finally:
        if not kept:
            claim.release()
    return claim if kept else None


def remove(staging: Path) -> None:
    """Remove a staging directory, its marker last; what cannot be removed stays for the next run."""
    with suppress(OSError):
        _discard(staging)


def exchange(a: Path, b: Path) -> bool:
    """Exchange two directories in one step; False where the kernel or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(AT_FDCWD, os.fsencode(a), AT_FDCWD, os.fsencode(b), RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in NO_EXCHANGE:
        return False
    raise OSError(code, os.strerror(code), str(b))


def _rename(step: Step) -> None:
    """Onto nothing, or an empty directory; the system refuses anything else."""
    try:
        step.written.rename(step.place)
    except OSError as fault:
        if fault.errno not in TAKEN:
            raise
        raise TargetError(
            f"{shown_path(step.place)} came into being while it was written, and is not replaced",
            "See what wrote it, and name another target.",
        ) from None


def _two_renames(step: Step) -> None:
    step.place.rename(step.old)
    sync(step.staging)  # that the old one is here must be on disk before its place is taken
    sync(step.place.parent)
    step.written.rename(step.place)


def _discard(staging: Path) -> None:
    for entry in staging.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()
    (staging / MARKER).unlink(missing_ok=True)  # a signal may have come after it
    staging.rmdir()
