"""How a finished directory takes the name of the target, and how a run puts right what a killed one left.

The directory being written holds a marker, locked as long as its run lives. It moves along with the directory, and
before a target is replaced
the marker notes which directory (by inode) is about to go. So every state that a kill can leave explains itself:

    .partial with marker                      unfinished: emptied, and used again
    .partial with marker, .old, no target     killed between two renames: .old is put back
    target with marker, .partial or .old      killed after the exchange: the replaced directory is removed
    target with marker                        killed at the very end: only the marker goes
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
import shutil
from contextlib import suppress
from itertools import count
from pathlib import Path

from ..errors import TargetError

MARKER = ".vlconv-partial"

AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h
NO_EXCHANGE = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)


class Claim:
    """Our marker in a directory and the lock on it: no other run touches that directory."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def new(cls, folder: Path) -> Claim:
        """Make the directory, and mark it."""
        try:
            folder.mkdir()
            claim = cls(os.open(folder / MARKER, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
        except FileExistsError:
            raise _busy(folder) from None
        except OSError as fault:
            with suppress(OSError):
                folder.rmdir()
            raise TargetError(f"{folder} cannot be made: {fault.strerror}", "Name a target elsewhere.") from fault
        _lock(claim._fd, folder)
        return claim

    @classmethod
    def take(cls, folder: Path) -> Claim | None:
        """The claim of a run that is gone; None where there is no marker.

        Raises:
            TargetError: that run is still at work, or it cannot be told.
        """
        try:
            fd = os.open(folder / MARKER, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as fault:
            raise TargetError(
                f"{folder / MARKER} cannot be opened: {fault.strerror}",
                f"Remove {folder} if no other run is writing it.",
            ) from fault
        claim = cls(fd)
        try:
            if not _lock(fd, folder):
                raise TargetError(
                    f"{folder} cannot be locked on this file system, so another run may still be writing it",
                    f"If none is, remove {folder}.",
                )
            if os.fstat(fd).st_nlink == 0:  # that run finished between our open and our lock
                raise _busy(folder)
        except BaseException:
            claim.release()
            raise
        return claim

    @property
    def replaces(self) -> int | None:
        """Inode of the directory that was about to be replaced."""
        with suppress(ValueError, AttributeError):
            inode = json.loads(os.pread(self._fd, 4096, 0)).get("replaces")
            return inode if isinstance(inode, int) else None
        return None

    @replaces.setter
    def replaces(self, inode: int | None) -> None:
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, json.dumps({"replaces": inode}).encode(), 0)
        os.fsync(self._fd)

    def release(self) -> None:
        """Give up the lock."""
        with suppress(OSError):
            os.close(self._fd)


def install(partial: Path, target: Path, claim: Claim) -> Path | None:
    """Give the finished directory the target's name, in one step where the file system can.

    Returns:
        Where the replaced directory still lies if it could not be removed; None in all other cases.
    """
    replaced: Path | None = None
    if target.is_dir() and any(target.iterdir()):
        claim.replaces = target.stat().st_ino
        replaced = partial if exchange(partial, target) else _two_renames(partial, target)
    else:
        partial.rename(target)
    sync(target.parent)
    if replaced:
        remove(replaced)
        if replaced.exists():
            return replaced
    (target / MARKER).unlink()
    sync(target)
    return None


def recover(target: Path, partial: Path) -> Claim | None:
    """Put right what a killed run left.

    Returns:
        The claim of an emptied `.partial` that can be used again; None when there is no such directory now.

    Raises:
        TargetError: another run is at work, or something there is not ours.
    """
    _finish(target)
    if not os.path.lexists(partial):
        return None
    claim = None if partial.is_symlink() else Claim.take(partial)
    if claim is None:
        try:
            partial.rmdir()  # empty: that run was killed before its marker
        except OSError:
            raise TargetError(
                f"{partial} is in the way and was not left by vlconv", "Move it elsewhere, or name another target."
            ) from None
        return None
    if not target.exists() and (old := _replaced(target, claim)):
        old.rename(target)
    _empty(partial)
    return claim


def remove(folder: Path) -> None:
    """Remove a directory, its marker last; what cannot be removed stays for the next run."""
    with suppress(OSError):
        _empty(folder)
        (folder / MARKER).unlink(missing_ok=True)
        folder.rmdir()


def sync(folder: Path) -> None:
    """Bring a directory's entries to disk."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    except OSError as fault:
        if fault.errno != errno.EINVAL:  # some network file systems know no fsync of directories
            raise
    finally:
        os.close(fd)


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


def _two_renames(partial: Path, target: Path) -> Path:
    names = (f"{target.name}.old{n or ''}" for n in count())
    old = next(p for p in map(target.with_name, names) if not os.path.lexists(p))
    try:
        target.rename(old)
        sync(target.parent)
        partial.rename(target)
    except BaseException:
        if not target.exists():
            old.rename(target)
        raise
    return old


def _replaced(target: Path, claim: Claim) -> Path | None:
    """The directory that a killed run was about to replace, under the name it has now."""
    inode = claim.replaces
    beside = (
        p for p in target.parent.iterdir() if p.name.startswith(f"{target.name}.") and p.is_dir() and not p.is_symlink()
    )
    return next((p for p in beside if p.stat().st_ino == inode), None) if inode is not None else None


def _finish(target: Path) -> None:
    """The end of a run that was killed after the target got its name."""
    claim = Claim.take(target)
    if claim is None:
        return
    if old := _replaced(target, claim):
        remove(old)
    (target / MARKER).unlink(missing_ok=True)
    claim.release()


def _empty(folder: Path) -> None:
    """Remove all but the marker."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != MARKER:
            entry.unlink()


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
    return TargetError(f"another run is writing {folder}", "Wait for it to end, or name another target.")
