"""Another dtype on the way: --dtype. The only place where numbers are computed, and torch does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MismatchError, shown
from .dtypes import storage
from .spec import Box, Reader

if TYPE_CHECKING:
    import torch

    from .spec import Array


class Cast:
    """A Reader whose tensors all have one dtype; rounds to nearest even, as torch does.

    Raises (while reading):
        MismatchError: a finite number becomes infinite in the narrower dtype.
    """

    def __init__(self, reader: Reader, dtype: str) -> None:
        self._reader = reader
        self._dtype = dtype
        self.specs = {name: spec._replace(dtype=dtype) for name, spec in reader.specs.items()}

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        below = self._reader.specs[box.name].dtype
        if below == self._dtype:
            self._reader.read_into(box, out)
            return
        import numpy as np

        raw = np.empty(box.lengths, dtype=storage(below))
        self._reader.read_into(box, raw)
        number = _torch(raw, below)
        result = number.to(_dtype(self._dtype))
        if int(result.isinf().sum()) != int(number.isinf().sum()):
            raise MismatchError(
                f"{shown(box.name)}: holds numbers too large for {self._dtype}", "Choose another --dtype."
            )
        out[...] = result.view(_dtype(storage(self._dtype).removeprefix("u"))).numpy().view(storage(self._dtype))

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()


def _dtype(name: str) -> torch.dtype:
    import torch

    found = getattr(torch, name)
    assert isinstance(found, torch.dtype)
    return found


def _torch(raw: Array, dtype: str) -> torch.Tensor:
    """Bits as a tensor of their dtype, shared memory."""
    import torch

    return torch.from_numpy(raw.view(storage(dtype).removeprefix("u"))).view(_dtype(dtype))
