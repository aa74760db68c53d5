"""Outputs that are not finished: still being written, or left by a run that was killed. They are no source.

An output is written in a folder `new` beside a marker, and leaves that folder when it is complete. What lies in a
folder `work` beside a marker is there for the time of a run (output/staging/scratch.py): outputs of
their own, each of them finished or not.
"""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import NotACheckpoint, shown_path

MARKER = ".vlconv-partial"
"""The name of the marker's file."""

WORK = "work"
"""The name of that folder."""

_ABOVE = 3
"""Folders above a checkpoint's own that may hold the marker: `out.partial/new/release/huggingface`."""


def check_finished(directory: Path) -> None:
    """Raises NotACheckpoint where a directory is, or lies in, an unfinished output."""
    staging = _staging(directory)
    if staging is not None:
        raise NotACheckpoint(
            f"{shown_path(directory)}: an unfinished output of vlconv, which still writes it or was killed",
            f"Wait for that run, or give its command again; if none is at work, {shown_path(staging)} can be removed.",
        )


def is_unfinished(directory: Path) -> bool:
    """Whether a directory is, or lies in, an unfinished output."""
    return _staging(directory) is not None


def _staging(directory: Path) -> Path | None:
    """The folder of the marker, which is that directory or one above it, links followed."""
    place = Path(os.path.realpath(directory))
    marked = next((p for p in (place, *place.parents[:_ABOVE]) if os.path.lexists(p / MARKER)), None)
    return None if marked is not None and (marked / WORK) in (place, *place.parents) else marked
