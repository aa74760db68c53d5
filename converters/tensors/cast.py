"""Another dtype on the way: --dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import MismatchError, shown
from .dtypes import converted, infinite, storage
from .spec import Box, Reader

if TYPE_CHECKING:
    from .spec import Array

BLOCK = 1 << 16
"""Elements that are computed at a time: what is made of them on the way stays in the processor's caches."""


class Cast:
    """A Reader whose tensors all have one dtype; rounds to nearest even, as torch does (dtypes.converted).

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
        numbers = raw.reshape(-1)
        result = np.empty(numbers.shape, dtype=storage(self._dtype))
        for at in range(0, numbers.size, BLOCK):
            bits = numbers[at : at + BLOCK]
            result[at : at + BLOCK] = cast = converted(bits, below, self._dtype)
            if infinite(cast, self._dtype) != infinite(bits, below):
                raise MismatchError(
                    f"{shown(box.name)}: holds numbers too large for {self._dtype}", "Choose another --dtype."
                )
        out[...] = result.reshape(box.lengths)

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()
