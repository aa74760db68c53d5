"""Matrices whose elements, row by row, are those of matrices of another shape."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .dtypes import storage
from .spec import Box, Reader, Shape, TensorSpec

if TYPE_CHECKING:
    from .spec import Array


class Reshaped:
    """A Reader of some tensors of another, each of whose stacked matrices is read as one of other rows and columns.

    A matrix is read whole, whatever is asked of it, and held until the thread that asked reads another one.

    Args:
        reader: the one below.
        shapes: name -> [E, rows, columns]; below it has as many matrices, of as many elements each.
    """

    def __init__(self, reader: Reader, shapes: Mapping[str, Shape]) -> None:
        self.below = (reader,)
        self.specs: dict[str, TensorSpec] = {
            name: reader.specs[name]._replace(shape=shape) for name, shape in shapes.items()
        }
        self._held = threading.local()

    def __getstate__(self) -> dict[str, Any]:
        """For another process, in which no matrix was read so far."""
        return {"below": self.below, "specs": self.specs}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _held=threading.local())

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        rows, columns = (slice(o, o + n) for o, n in zip(box.offsets[1:], box.lengths[1:], strict=True))
        for at in range(box.lengths[0]):
            out[at] = self._matrix(box.name, box.offsets[0] + at)[rows, columns]

    def _matrix(self, name: str, number: int) -> Array:
        import numpy as np

        if getattr(self._held, "key", None) != (name, number):
            below = self.below[0].specs[name]
            found = np.empty((1, *below.shape[1:]), storage(below.dtype))
            self.below[0].read_into(Box(name, (number, 0, 0), found.shape), found)
            self._held.matrix, self._held.key = found.reshape(self.specs[name].shape[1:]), (name, number)
        matrix: Array = self._held.matrix
        return matrix

    def finish(self) -> None:
        """See Reader."""
        self.below[0].finish()
