"""The output directory: absent or complete, never half done.

Everything is written to `<target>.partial` beside it and takes the target's name at the very end (swap.py).
A run that is killed leaves a `.partial` whose marker tells the next run that it may go.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from ..errors import TargetError, sized
from .atomic_swap import Claim, install, recover, remove

NO_ROOM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file system takes no file so large",
    errno.EROFS: "it is read-only",
}


class OutputDirectory:
    """A directory that comes into being as a whole.

        with OutputDirectory(target, sources=[source], need=nbytes) as partial:
            ...  # write below `partial`

    On success the target is the finished directory; `leftover` then says where a replaced one still lies, if it could
    not be removed.
    On any exception, Ctrl-C among them, what was written is removed and an existing target is as it was.

    Args:
        target: where the output is to be.
        sources: directories the output is made from; the target must not touch them.
        overwrite: whether a target that holds something may be replaced.
        need: bytes that will be written; the room is checked before the first.

    Raises:
        TargetError: it cannot be written there; also in place of an OSError of a full disk.
    """

    def __init__(self, target: Path, sources: Sequence[Path] = (), *, overwrite: bool = False, need: int = 0) -> None:
        self.target = Path(os.path.realpath(target))
        self.partial = self.target.parent / f"{self.target.name}.partial"
        self._sources = [Path(os.path.realpath(s)) for s in sources]
        self._overwrite = overwrite
        self._need = need
        self._claim: Claim | None = None
        self.leftover: Path | None = None

    def check(self) -> str:
        """Refuse a target that cannot be written, without touching anything.

        Returns:
            what a lack of room would be refused with; "" when there is enough. A plan is worth seeing on a small disk,
            too.
        """
        _check_place(self.target)
        _check_apart(self.target, self._sources)
        _check_vacant(self.target, self._overwrite)
        try:
            _check_room(self.target.parent, self._need)
        except TargetError as error:
            return error.what
        return ""

    def __enter__(self) -> Path:
        _check_place(self.target)
        _check_apart(self.target, self._sources)
        claim = recover(self.target, self.partial)
        try:
            _check_vacant(self.target, self._overwrite)
            _check_room(self.target.parent, self._need)
            self._claim = claim or Claim.new(self.partial)
        except BaseException:
            if claim:
                remove(self.partial)
                claim.release()
            raise
        return self.partial

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._claim is not None
        try:
            late = fault or self._finish(self._claim)
            if late is not None:
                remove(self.partial)
        finally:
            self._claim.release()
        if late is not None and (why := _no_room(late)):
            raise TargetError(
                f"{self.target} cannot be written: {why}",
                "Nothing was left behind. Free some room, or name a target on another disk.",
            ) from late
        if late is not fault and late is not None:
            raise late

    def _finish(self, claim: Claim) -> BaseException | None:
        try:
            _sync_tree(self.partial)
            self.leftover = install(self.partial, self.target, claim)
        except BaseException as late:
            return late
        return None


def _check_place(target: Path) -> None:
    """The target can be named and its parent can be written to."""
    parent = target.parent
    if os.path.ismount(target):
        raise TargetError(
            f"{target} is the root of a file system and cannot be exchanged as a whole",
            f"Name a directory inside it, such as {target / 'out'}.",
        )
    if target.exists() and not target.is_dir():
        raise TargetError(f"{target} is a file, not a directory", "Name a directory that does not exist yet.")
    if not parent.is_dir():
        standing = next(p for p in parent.parents if p.exists())
        what = "is not a directory" if parent.exists() else "does not exist"
        raise TargetError(
            f"{parent}, where {target.name} would be written, {what}",
            f"Create it first, or name a target in {standing}.",
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise TargetError(
            f"{parent} is not writable", f"Name a target in a directory that is, such as {_writable() / target.name}."
        )


def _check_apart(target: Path, sources: Sequence[Path]) -> None:
    """Writing the target touches no source, whatever links and bind mounts lead there."""
    for source in sources:
        if _holds(source, target):
            which = "is the source itself" if _same(source, target) else f"lies inside the source {source}"
            raise TargetError(
                f"{target} {which}", f"Name a target elsewhere, such as {source.parent / f'{source.name}-converted'}."
            )
        if _holds(target, source):
            raise TargetError(
                f"the source {source} lies inside the target {target}", "Name a target that holds no source."
            )


def _check_vacant(target: Path, overwrite: bool) -> None:
    if not target.is_dir() or not any(target.iterdir()):
        return
    if not overwrite:
        raise TargetError(
            f"{target} exists and is not empty",
            "Name another target, or add --overwrite: it is then replaced once the new one is complete.",
        )
    if _holds(target, Path.cwd()):
        raise TargetError(
            f"{target} holds the current directory and is not replaced", "Change to another directory first."
        )
    for folder, below, _ in os.walk(target):
        for mounted in (Path(folder, name) for name in below if os.path.ismount(Path(folder, name))):
            raise TargetError(
                f"another file system is mounted at {mounted}, so {target} is not replaced",
                "Unmount it, or name another target.",
            )


def _check_room(parent: Path, need: int) -> None:
    disk = os.statvfs(parent)
    free = disk.f_bavail * disk.f_frsize
    if need > free:
        raise TargetError(
            f"the output needs {sized(need)} and {parent} has {sized(free)} free",
            "Free some room (a target that is overwritten keeps its own until the end), or name a target on another disk.",
        )


def _holds(outer: Path, inner: Path) -> bool:
    return any(_same(outer, p) for p in (inner, *inner.parents))


def _same(a: Path, b: Path) -> bool:
    try:
        return a == b or a.samefile(b)
    except OSError:
        return False


def _writable() -> Path:
    places = (Path.cwd(), Path.home(), Path(tempfile.gettempdir()))
    return next((p for p in places if os.access(p, os.W_OK | os.X_OK)), places[0])


def _sync_tree(root: Path) -> None:
    """Bring every file and directory below `root` to disk."""
    for folder, _, files in os.walk(root, topdown=False):
        for path in (*(Path(folder, f) for f in files), Path(folder)):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                os.fsync(fd)
            finally:
                os.close(fd)


def _no_room(fault: BaseException) -> str:
    return NO_ROOM.get(fault.errno or 0, "") if isinstance(fault, OSError) else ""
