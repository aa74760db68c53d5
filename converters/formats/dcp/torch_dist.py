"""torch_dist: Megatron-core's distributed checkpoint, read. metadata.json, written last, says what it is."""

from __future__ import annotations

from pathlib import Path

from ..open_files import is_file
from ..opened import Opened
from .read import finished_metadata, open_dcp

NAME = "torch_dist"


def holds(directory: Path) -> bool:
    """Whether a directory itself is a torch_dist checkpoint."""
    return is_file(directory / "metadata.json")


def open_torch_dist(directory: Path) -> Opened:
    """Open a torch_dist checkpoint. Errors as `finished_metadata` and `open_dcp`."""
    return open_dcp(directory, finished_metadata(directory), NAME)
