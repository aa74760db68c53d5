"""What a side of verify is called: a directory, or one iteration of a save directory as SAVE:100."""

from __future__ import annotations

import re
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from ..checkpoint.hub_source import hf_directory
from ..errors import NotComparable, shown

_WITH_ITERATION = re.compile(r"(.+):(\d{1,12})", re.ASCII)


class SidePath(NamedTuple):
    """A directory, and which of its iterations; None: not said."""

    path: Path
    iteration: int | None = None


def side_path(spelled: str | PathLike[str]) -> SidePath:
    """The side that a user names.

    Args:
        spelled: "checkpoints", or "checkpoints:100" for an iteration; else text as "org/name@revision" for a model on
            the Hub. A directory that is really called so comes first.

    Raises:
        NotComparable: there is nothing of that name.
        HubFault: neither the Hub nor the cache gives it.
    """
    path = Path(spelled)
    if path.exists():
        return SidePath(path)
    found = _WITH_ITERATION.fullmatch(str(spelled))
    if found and Path(found[1]).is_dir():
        return SidePath(Path(found[1]), int(found[2]))
    directory = hf_directory(spelled)
    if directory != path:
        return SidePath(directory)
    raise NotComparable(f"{shown(path)} does not exist", "Give the directory of a checkpoint or of a model.")


def refuse_same(a: Path, b: Path) -> None:
    """A directory is not compared with itself: that would say nothing.

    Args:
        a, b: the directories that hold the two sides' files.

    Raises:
        NotComparable: they are one.
    """
    if a == b or a.samefile(b):
        raise NotComparable(
            f"A and B are the same directory, {shown(a)}",
            "Two iterations are compared as SAVE:100 SAVE:200; leave B out to prove the round trip of A.",
        )
