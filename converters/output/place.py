"""Whether an output may take a place: looked at before the first byte, without touching anything."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ..errors import TargetError, shown, shown_path, sized
from ..formats.directory.unfinished import MARKER


def check_place(target: Path) -> None:
    """The target can be named and its parent can be written to."""
    parent = target.parent
    if os.path.ismount(target):
        raise TargetError(
            f"{shown_path(target)} is the root of a file system and cannot be exchanged as a whole",
            f"Name a directory inside it, such as {shown_path(target / 'out')}.",
        )
    if target.is_symlink():
        raise TargetError(f"{shown_path(target)} is a link", "Name a target where no link is.")
    if target.exists() and not target.is_dir():
        raise TargetError(
            f"{shown_path(target)} is a file, not a directory", "Name a directory that does not exist yet."
        )
    if not parent.is_dir():
        standing = next(p for p in parent.parents if p.exists())
        what = "is not a directory" if parent.exists() else "does not exist"
        raise TargetError(
            f"{shown_path(parent)}, where {shown(target.name)} would be written, {what}",
            f"Create it first, or name a target in {shown_path(standing)}.",
        )
    if not os.access(parent, os.W_OK | os.X_OK):
        raise TargetError(
            f"{shown_path(parent)} is not writable",
            f"Name a target in a directory that is, such as {shown_path(_writable() / target.name)}.",
        )


def check_apart(target: Path, sources: Sequence[Path]) -> None:
    """Writing the target touches no source, whatever links and bind mounts lead there.

    Args:
        target: the directory to write.
        sources: the source, and after it what the reference gives.
    """
    for number, source in enumerate(sources):
        whose = "the reference" if number else "the source"
        if _holds(source, target):
            which = f"is {whose} itself" if _same(source, target) else f"lies inside {whose} {shown_path(source)}"
            raise TargetError(
                f"{shown_path(target)} {which}",
                f"Name a target elsewhere, such as {shown_path(source.with_name(f'{source.name}-converted'))}.",
            )
        if _holds(target, source):
            raise TargetError(
                f"{whose} {shown_path(source)} lies inside the target {shown_path(target)}",
                f"Name a target that does not hold {whose}.",
            )


def check_staging(staging: Path) -> None:
    """Where the output is written at first, nothing of somebody else lies."""
    if not os.path.lexists(staging):
        return
    ours = staging.is_dir() and not staging.is_symlink()
    if not ours or (not (staging / MARKER).is_file() and list(staging.iterdir())):
        raise TargetError(
            f"{shown_path(staging)} is in the way and was not left by vlconv",
            "Move it elsewhere, or name another target.",
        )


def check_removable(target: Path) -> None:
    """Nobody stands in the target, and no other file system hangs in it."""
    if _holds(target, Path.cwd()):
        raise TargetError(
            f"{shown_path(target)} holds the current directory and is not replaced",
            "Change to another directory first.",
        )
    for folder, below, _ in os.walk(target):
        for mounted in (Path(folder, name) for name in below if os.path.ismount(Path(folder, name))):
            raise TargetError(
                f"another file system is mounted at {shown_path(mounted)}, so {shown_path(target)} is not replaced",
                "Unmount it, or name another target.",
            )


def check_room(parent: Path, need: int) -> None:
    """The disk has room for the output."""
    disk = os.statvfs(parent)
    free = disk.f_bavail * disk.f_frsize
    if need > free:
        raise TargetError(
            f"the output needs {sized(need)} and {shown_path(parent)} has {sized(free)} free",
            "Free some room (a target that is overwritten keeps its own until the end), or name a target on another "
            "disk.",
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
