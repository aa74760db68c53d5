"""What a run that was ended has left beside its target: gone on with, removed, or told."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...errors import shown_path, sized
from ...formats.directory.unfinished import MARKER
from ...report import Report
from .journal import Journal

PARTIAL = ".partial"


class Abandoned(NamedTuple):
    """A staging directory that nobody writes any more, and the bytes in it."""

    path: Path
    nbytes: int


def describe_ended(report: Report, staging: Path, ended: Journal, *, same: bool) -> None:
    """Tell what becomes of what an ended run has left in this run's staging directory."""
    files, nbytes = len(ended.finished), ended.nbytes
    if same:
        report.fact(
            "resumes",
            f"a run that was ended: {files} files, {sized(nbytes)}, are in {shown_path(staging)}; each is read again, "
            "and kept if its checksum is still the one noted",
            resumes={"files": files, "bytes": nbytes},
        )
    else:
        report.fact(
            "starts_anew",
            f"what an ended run has left in {shown_path(staging)} is removed: its source, options or version "
            "were others, or --no-resume asks for it",
            starts_anew=str(staging),
        )


def abandoned(looked_at: Iterable[Path]) -> list[Abandoned]:
    """What ended runs have left in some directories and beside them.

    Args:
        looked_at: the sources and targets of a command; one that does not exist may have something beside it.
    """
    folders = {folder for path in looked_at for folder in (path, path.absolute().parent)}
    found = {os.path.realpath(entry): entry for folder in sorted(folders) for entry in _partials(folder)}
    return [Abandoned(entry, _size(entry)) for entry in found.values() if _is_free(entry / MARKER)]


def describe_abandoned(report: Report, left: Iterable[Abandoned]) -> None:
    """Tell of them; each stays as it is."""
    for entry in left:
        report.warnings.append(
            f"{shown_path(entry.path)} is what a run that was ended has left, {sized(entry.nbytes)}: the same command "
            "again goes on with it; otherwise remove it"
        )


def _partials(folder: Path) -> Iterator[Path]:
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.endswith(PARTIAL) and entry.is_dir(follow_symlinks=False):
                yield Path(entry.path)


def _is_free(marker: Path) -> bool:
    """Whether a marker is there and its lock could be had."""
    try:
        fd = os.open(marker, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        finally:
            os.close(fd)
    except OSError:
        return False
    return True


def _size(folder: Path) -> int:
    """Bytes of all files below, as far as they can be seen."""
    total = 0
    for path, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                total += Path(path, name).lstat().st_size
    return total
