"""Files and nothing else: how each format is read and planned.

FORMATS are those of a checkpoint to read, by name: Megatron's own as `--ckpt-format` has them, and `dcp`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from .dcp import plain, torch_dist
from .dcp.read import owns as owns_dcp
from .directory.locate import locate
from .legacy import ranks
from .opened import Opened


class Format(NamedTuple):
    """A checkpoint format.

    Attributes:
        title: what it is called in a sentence.
        holds: whether a directory itself holds one.
        open: opens it; where two formats look alike from outside, gives the one that it is.
        owns: whether something in such a directory is part of it.
    """

    title: str
    holds: Callable[[Path], bool]
    open: Callable[[Path], Opened]
    owns: Callable[[Path], bool]


def _open_legacy(directory: Path) -> Opened:
    from .legacy.read import open_legacy  # a dozen modules, which other formats can do without

    return open_legacy(directory)


FORMATS: dict[str, Format] = {
    torch_dist.NAME: Format("Megatron torch_dist", torch_dist.holds, torch_dist.open_torch_dist, owns_dcp),
    plain.FSDP: Format("Megatron fsdp_dtensor", plain.holds, plain.open_plain, owns_dcp),
    plain.DCP: Format("torch DCP", plain.holds, plain.open_plain, owns_dcp),
    ranks.NAME: Format("Megatron torch", ranks.holds, _open_legacy, ranks.owns),
}


def is_mcore(directory: Path) -> bool:
    """Whether a directory itself holds a checkpoint of one of FORMATS."""
    return any(f.holds(directory) for f in FORMATS.values())


def open_mcore(source: Path, iteration: int | None = None) -> Opened:
    """Find the checkpoint at or below a directory and open it.

    Raises:
        NotACheckpoint: none there, several, or an unfinished one.
        CorruptError: damaged or hostile.
    """
    directory = locate(source, is_mcore, iteration)
    return next(f for f in FORMATS.values() if f.holds(directory)).open(directory)
