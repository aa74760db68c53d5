"""The parallel sizes that a checkpoint was written at."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import SourceError
from ..formats.directory.statements import Stated
from ..formats.open_files import children
from ..formats.opened import Opened

SIZES = {
    "tensor_model_parallel_size": "tp",
    "pipeline_model_parallel_size": "pp",
    "virtual_pipeline_model_parallel_size": "vpp",
    "expert_model_parallel_size": "ep",
    "expert_tensor_parallel_size": "etp",
    "context_parallel_size": "cp",
    "data_parallel_size": "dp",
    "world_size": "world_size",
}
"""Megatron's names, and what people call them."""

RANKS = "ranks_that_wrote"

_FILE = re.compile(r"__(\d{1,9})_\d+\.distcp", re.ASCII)


def topology(directory: Path, opened: Opened | None, stated: Sequence[Stated]) -> dict[str, int]:
    """Parallel sizes by their short names, as far as files and statements show them.

    Args:
        directory: of the checkpoint.
        opened: its files; None where they could not be opened.
        stated: what it states of itself.
    """
    found = {
        short: value
        for said in reversed(stated)  # the first one wins
        for name, short in SIZES.items()
        if type(value := said.values.get(name)) is int and 0 < value < 2**31
    }
    if opened and opened.topology:
        sizes = opened.topology
        found |= {"tp": sizes.tp, "pp": sizes.pp, "vpp": sizes.vpp, "ep": sizes.ep, "etp": sizes.etp}
    writers = _writers(directory)
    return {short: found[short] for short in SIZES.values() if short in found} | ({RANKS: writers} if writers else {})


def _writers(directory: Path) -> int:
    """How many ranks wrote files of a distributed checkpoint."""
    try:
        return len({match[1] for path in children(directory) if (match := _FILE.fullmatch(path.name))})
    except SourceError:
        return 0
