"""A Reader that holds the last matrices it read: a permutation reads many small boxes of the same one."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Box, Reader
from .sample import bits

if TYPE_CHECKING:
    from ...tensors.spec import Array

ROOM = 32 << 20
"""Bytes that are held, as many as a thread of a conversion has; of a larger matrix every box is read by itself."""


class Remembered:
    """A Reader of the same tensors, for one thread.

    Args:
        reader: the one below.
    """

    def __init__(self, reader: Reader) -> None:
        self.specs = reader.specs
        self.below = (reader,)
        self._held: dict[tuple[str, tuple[int, ...]], Array] = {}

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        shape = self.specs[box.name].shape
        lead = max(0, len(shape) - 2)
        one = all(length == 1 for length in box.lengths[:lead])
        if not one or prod(shape[lead:]) * ITEMSIZE[self.specs[box.name].dtype] > ROOM:
            self.below[0].read_into(box, out)
            return
        matrix = self._matrix(box.name, box.offsets[:lead])
        inside = tuple(slice(o, o + n) for o, n in zip(box.offsets[lead:], box.lengths[lead:], strict=True))
        out[...] = matrix[inside].reshape(box.lengths)

    def _matrix(self, name: str, lead: tuple[int, ...]) -> Array:
        found = self._held.get((name, lead))
        if found is None:
            shape = self.specs[name].shape
            rest = shape[len(lead) :]
            nbytes = prod(rest) * ITEMSIZE[self.specs[name].dtype]
            while self._held and sum(matrix.nbytes for matrix in self._held.values()) + nbytes > ROOM:
                del self._held[next(iter(self._held))]
            whole = Box(name, (*lead, *(0,) * len(rest)), (*(1,) * len(lead), *rest))
            found = self._held[name, lead] = bits(self.below[0], whole).reshape(rest)
        return found

    def finish(self) -> None:
        """See Reader."""
        self.below[0].finish()
