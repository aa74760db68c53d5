"""A distributed checkpoint through torch's own reader, with no help of vlconv's.

shapes(directory)       every tensor entry, from the metadata alone
load(directory)         every entry, read: tensors, and what the byte entries unpickle to
unstacked(tensors)      layers apart, as `mcore.fill.whole` names them
items(directory)        the bytes of every item, where the metadata say they lie
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed import checkpoint
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint.metadata import Metadata, TensorStorageMetadata

_LIST = re.compile(r"\.(layers|deepstack_merger_list)\.(?!\d)")


def metadata(directory: Path) -> Metadata:
    """What `.metadata` unpickles to."""
    return FileSystemReader(directory).read_metadata()


def shapes(directory: Path) -> dict[str, tuple[int, ...]]:
    """Every tensor entry."""
    return {
        name: tuple(entry.size)
        for name, entry in metadata(directory).state_dict_metadata.items()
        if isinstance(entry, TensorStorageMetadata)
    }


def load(directory: Path) -> dict[str, Any]:
    """Every entry of the model: tensors put together from their chunks, byte entries unpickled."""
    state: dict[str, Any] = {}
    for name, entry in metadata(directory).state_dict_metadata.items():
        if not name.startswith(("optimizer", "rng_state")):
            state[name] = (
                torch.empty(entry.size, dtype=entry.properties.dtype)
                if isinstance(entry, TensorStorageMetadata)
                else None
            )
    with warnings.catch_warnings(action="ignore"):  # that it loads without a process group
        checkpoint.load(state, checkpoint_id=directory, no_dist=True)
    return state


def unstacked(state: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors of `load`, one for each layer and merger."""
    tensors: dict[str, Tensor] = {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            continue
        if _LIST.search(name):
            tensors |= {_LIST.sub(rf".\1.{at}.", name): layer for at, layer in enumerate(value)}
        else:
            tensors[name] = value
    return tensors


def items(directory: Path) -> Iterator[tuple[str, bytes]]:
    """(key, bytes) of every item."""
    for index, place in metadata(directory).storage_data.items():
        with (directory / place.relative_path).open("rb") as file:
            file.seek(place.offset)
            yield index.fqn, file.read(place.length)
