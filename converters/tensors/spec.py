"""What a tensor is: TensorSpec, Box, Reader.

Shapes are tuples of ints in elements. A dtype is torch's name without the prefix ("bfloat16"). Elements move as
unsigned integers of the same width, so no value is ever interpreted.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .dtypes import ITEMSIZE

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]

Shape = tuple[int, ...]


class TensorSpec(NamedTuple):
    """A tensor without its numbers."""

    name: str
    shape: Shape
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * ITEMSIZE[self.dtype]


class Box(NamedTuple):
    """An axis-aligned part of a tensor: `lengths` elements from `offsets` on, per axis."""

    name: str
    offsets: Shape
    lengths: Shape

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.lengths)


def whole(spec: TensorSpec) -> Box:
    """The box that is all of a tensor."""
    return Box(spec.name, (0,) * len(spec.shape), spec.shape)


class Reader(Protocol):
    """Anything tensors can be read from, box by box, from several threads at once.

    One over others has them in `below`, a tuple.
    """

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Every tensor that can be read, by name."""

    def read_into(self, box: Box, out: Array) -> None:
        """Copy the elements of `box` to `out`.

        Args:
            box: a box inside the tensor of that name.
            out: array of shape `box.lengths` and an unsigned integer dtype of the tensor's width (`storage`); any
                strides.

        Raises:
            CorruptError: the file under it is damaged.
        """

    def finish(self) -> None:
        """Check what can be checked only after all reading (sums over whole items)."""
