"""torch_dist: Megatron-core's distributed checkpoint, read. metadata.json, written last, says what it is."""

from __future__ import annotations

from pathlib import Path

from ..open_files import is_file
from ..opened import Opened
from .backend import FILE, stated_backend
from .plain import FSDP, open_plain
from .read import finished_metadata, open_dcp

NAME = "torch_dist"


def holds(directory: Path) -> bool:
    """Whether a directory itself is a torch_dist checkpoint."""
    return is_file(directory / FILE)


def open_torch_dist(directory: Path) -> Opened:
    """Open a torch_dist checkpoint. Errors as `stated_backend`, `finished_metadata` and `open_dcp`.

    Megatron-LM's trainer leaves no metadata.json beside an fsdp_dtensor checkpoint, but one of its tools does.
    """
    if stated_backend(directory, (NAME, FSDP)) == FSDP:
        return open_plain(directory)
    return open_dcp(directory, finished_metadata(directory), NAME)
