"""A Reader of torch tensors in memory, and whole tensors out of any Reader."""

from __future__ import annotations

from typing import Any

from vlconv.converters.tensors.dtypes import storage
from vlconv.converters.tensors.spec import Box, TensorSpec, whole


class Memory:
    """Tensors by name."""

    def __init__(self, tensors: dict[str, Any]) -> None:
        self._tensors = {name: bits(t) for name, t in tensors.items()}
        self.specs = {
            name: TensorSpec(name, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for name, t in tensors.items()
        }

    def read_into(self, box: Box, out: Any) -> None:
        out[...] = self._tensors[box.name][
            tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))
        ]

    def finish(self) -> None:
        pass


def bits(tensor: Any) -> Any:
    """A torch tensor's bits as unsigned integers in numpy."""
    import torch

    return tensor.contiguous().view(getattr(torch, storage(str(tensor.dtype).removeprefix("torch.")))).numpy()


def all_bits(reader: Any) -> dict[str, Any]:
    """Every tensor of a Reader as unsigned integers."""
    import numpy as np

    found = {}
    for name, spec in reader.specs.items():
        found[name] = np.empty(spec.shape, storage(spec.dtype))
        reader.read_into(whole(spec), found[name])
    return found
