"""The files that a directory holds are its own: a link does not make another file of this machine one of them.

A directory from elsewhere may hold `merges.txt`, a link to a password file: copied beside the weights, it would be
published with them. Weights may be links to anywhere: what they lead to is nothing unless it is safetensors.
"""

from __future__ import annotations

from os import path as paths
from pathlib import Path
from shlex import quote

from ...errors import CorruptError, shown_path


def check_own(file: Path) -> None:
    """Refuse a file that is a link out of its directory, unless that is a snapshot in a Hugging Face hub cache.

    There each file is a link to one of the blobs of the same repository: `models--A--B/snapshots/REVISION/merges.txt`
    to `models--A--B/blobs/HASH`.

    Raises:
        CorruptError: it is; names the link and where it leads.
    """
    folder, target = _real(file.parent), _real(file)
    if target.is_relative_to(folder) or _is_blob(target, folder):
        return
    raise CorruptError(
        f"{shown_path(file)} is a link that leads out of its directory, to {shown_path(target)}",
        "If that file belongs to the model, copy it there itself: cp --remove-destination "
        f"{quote(shown_path(target))} {quote(shown_path(file))}",
    )


def leads_elsewhere(folder: Path, others: list[Path]) -> Path | None:
    """Where a folder leads that is a link, unless to something beside it or to one of the others; None if nowhere.

    Args:
        folder: may be a link.
        others: folders that stand for the same, as far as they are there.
    """
    target = _real(folder)
    places = [_real(other.parent) / other.name for other in others]
    return None if target.is_relative_to(_real(folder.parent)) or target in places else target


def _is_blob(target: Path, folder: Path) -> bool:
    """Whether a snapshot's file leads to a blob of its own repository."""
    return folder.parent.name == "snapshots" and target.parent == folder.parent.parent / "blobs"


def _real(path: Path) -> Path:
    """A path with all links followed, as far as they lead; Path.resolve fails on links in a circle."""
    return Path(paths.realpath(path))
