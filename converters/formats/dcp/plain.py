"""Distributed checkpoints without metadata.json, read.

Megatron-FSDP's fsdp_dtensor, and what other trainers save with torch's own DCP.

Their names stand behind `model.`; those of a torch_dist save that was never finished do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from ...tensors.sharding import Split
from ...tensors.spec import TensorSpec
from ..keys import fold
from ..open_files import children, is_file
from ..opened import Opened
from .backend import FILE
from .fsdp_order import in_order
from .read import Chunks, finished_metadata, open_dcp, stated_args, unfinished, weights

FSDP, DCP = "fsdp_dtensor", "dcp"

_MODEL = "model."
_MEGATRON = ".decoder.layers."


def holds(directory: Path) -> bool:
    """Whether a directory itself is such a checkpoint, finished or not.

    Which of the two it is, only its metadata can tell.
    """
    return not is_file(directory / FILE) and (
        is_file(directory / ".metadata") or any(path.suffix == ".distcp" for path in children(directory))
    )


def open_plain(directory: Path) -> Opened:
    """Open it.

    The names say whose it is: Megatron's decoder has its layers in a module of its own, Hugging Face's has not.

    Raises:
        NotACheckpoint: the save was never finished.
        CorruptError, UnsupportedError, ReadError: as `open_dcp`.
    """
    metadata = finished_metadata(directory)
    names = [metadata.tensors[i].name for i in weights(metadata)]
    if not any(name.startswith(_MODEL) for name in names):
        raise unfinished(directory, FILE)
    folds = [fold(name) for name in names]
    halved, pieces = {how.name for how in folds if how.half}, {how.name for how in folds if how.piece}

    @cache
    def ranks() -> object:
        return stated_args(directory, metadata).get("tensor_model_parallel_size")

    def placed(specs: Mapping[str, TensorSpec], chunks: Chunks, splits: Mapping[str, Split]) -> Chunks:
        return in_order(specs, chunks, halved, pieces, splits, ranks)

    whose = FSDP if any(_MEGATRON in name for name in names) else DCP
    return open_dcp(directory, metadata, whose, placed if whose == FSDP else None, tied_copy=True)
