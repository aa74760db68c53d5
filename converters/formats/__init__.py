"""Files and nothing else: how each format is read and planned.

FORMATS are Megatron's, by the name of `--ckpt-format`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .dcp import read as torch_dist
from .legacy import ranks
from .legacy import read as legacy
from .locate import locate
from .opened import Opened


class Format(NamedTuple):
    """A Megatron checkpoint format: whether a directory itself holds one, how to open it, and which entries are its own."""

    holds: Callable[[Path], bool]
    open: Callable[[Path], Opened]
    owns: Callable[[Path], bool]


FORMATS: dict[str, Format] = {
    torch_dist.NAME: Format(torch_dist.holds, torch_dist.open_torch_dist, torch_dist.owns),
    legacy.NAME: Format(legacy.holds, legacy.open_legacy, ranks.owns),
}


def is_mcore(directory: Path) -> bool:
    """Whether a directory itself holds a Megatron checkpoint."""
    return any(f.holds(directory) for f in FORMATS.values())


def open_mcore(source: Path, iteration: int | None = None) -> Opened:
    """Find the checkpoint at or below a directory and open it.

    Raises:
        NotACheckpoint: none there, several, or an unfinished one.
        CorruptError: damaged or hostile.
    """
    directory = locate(source, is_mcore, iteration)
    return next(f for f in FORMATS.values() if f.holds(directory)).open(directory)
