"""What an output may replace: what one earlier output of its kind would be, and nothing else."""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from ..errors import TargetError, shown, shown_path, sized
from ..formats.directory.contents import (
    is_save_directory,
    strange_in_adapter,
    strange_in_checkpoint,
    strange_in_iteration,
    strange_in_model,
)

Copies = Mapping[str, Sequence[Path]]
"""Folder below the target -> files that are copied there byte for byte."""

LISTED = 5
"""How many of the things that stand in the way are named."""


class Kind(NamedTuple):
    """A kind of output.

    Attributes:
        name: in words.
        strange: what a directory holds that none of this kind has; None where it is none at all.
    """

    name: str
    strange: Callable[[Path], list[Path] | None]


HF_MODEL = Kind("one Hugging Face model", strange_in_model)
PEFT = Kind("one PEFT adapter", strange_in_adapter)
CHECKPOINT = Kind("one Megatron checkpoint", strange_in_checkpoint)
ITERATION = Kind("one iteration of a Megatron checkpoint", strange_in_iteration)


class Existing(NamedTuple):
    """What is there, to be replaced.

    Attributes:
        kind: what it is.
        entries: path, inode, bytes and time of change of everything below, so that a change is seen.
        files: how many, links not counted.
        nbytes: of all of them.
    """

    kind: Kind
    entries: frozenset[tuple[str, int, int, int]]
    files: int
    nbytes: int

    def __str__(self) -> str:
        return f"{self.kind.name}, {sized(self.nbytes)} in {self.files} file{'s' * (self.files != 1)}"


def existing(place: Path, kind: Kind, copies: Copies) -> Existing:
    """What is at a place, which an output of that kind may replace.

    Args:
        place: a directory that is not empty.
        copies: what the output holds byte for byte; of a file that comes again nothing is lost, whatever it is.

    Raises:
        TargetError: it holds something that no earlier output would; names it.
    """
    strange = kind.strange(place)
    others = sorted(place.iterdir()) if strange is None else [p for p in strange if not _comes_again(p, place, copies)]
    if others:
        names = [shown(path.relative_to(place)) for path in others]
        more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
        held = f"it holds {', '.join(names[:LISTED])}{more}"
        raise TargetError(
            f"{shown_path(place)} is not replaced, for it is not {kind.name} and nothing else: {held}",
            _hint(place, kind),
        )
    found = [(str(path), path.lstat()) for path in _below(place)]
    sizes = [status.st_size for _, status in found if stat.S_ISREG(status.st_mode)]
    entries = frozenset((path, status.st_ino, status.st_size, status.st_mtime_ns) for path, status in found)
    return Existing(kind, entries, len(sizes), sum(sizes))


def _hint(place: Path, kind: Kind) -> str:
    elsewhere = "Name another target, or move what is in the way elsewhere"
    if kind is CHECKPOINT and is_save_directory(place):
        return f"{elsewhere}. --as-iteration N adds an iteration to those that are there."
    return f"{elsewhere}."


def _comes_again(path: Path, place: Path, copies: Copies) -> bool:
    inside = path.relative_to(place)
    folder = "" if inside.parent == Path() else str(inside.parent)
    again = next((source for source in copies.get(folder, ()) if source.name == path.name), None)
    return again is not None and path.is_file() and filecmp.cmp(path, again, shallow=False)


def _below(place: Path) -> list[Path]:
    return [Path(folder, name) for folder, folders, files in os.walk(place) for name in (*folders, *files)]
