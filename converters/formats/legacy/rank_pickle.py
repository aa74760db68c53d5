"""The data.pkl of a torch.save file whose tensors are written by someone else."""

from __future__ import annotations

import io
import pickle
from collections import OrderedDict
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from ...tensors.spec import Shape
from ..chunks import row_major
from ..pickles.tensor_pickle import STORAGES


@dataclass(frozen=True, slots=True)
class Placeholder:
    """A dense tensor in a tree: its storage is number `key` of the file."""

    shape: Shape
    dtype: str
    key: int


class _Storage(NamedTuple):
    kind: type
    key: str
    numel: int


def pickled(tree: object) -> bytes:
    """A tree as torch.save pickles it, with Placeholders for tensors."""
    import torch
    from torch._utils import _rebuild_tensor_v2  # the function that torch's own pickles name

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", value.kind, value.key, "cpu", value.numel) if isinstance(value, _Storage) else None

        def reducer_override(self, value: Any) -> Any:
            if not isinstance(value, Placeholder):
                return NotImplemented
            storage = _Storage(getattr(torch, STORAGES[value.dtype]), str(value.key), prod(value.shape))
            return _rebuild_tensor_v2, (storage, 0, value.shape, row_major(value.shape), False, OrderedDict())

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(tree)
    return buffer.getvalue()
