"""Tensors of zeros beside those of a reader."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..tensors.spec import Box, Reader, TensorSpec

if TYPE_CHECKING:
    from ..tensors.spec import Array


class WithZeros:
    """A Reader with more tensors than the one below: all zeros.

    Args:
        reader: the one below.
        specs: of the tensors that it has not.
    """

    def __init__(self, reader: Reader, specs: Iterable[TensorSpec]) -> None:
        self._reader = reader
        self._zeros = {spec.name: spec for spec in specs}
        self.specs: dict[str, TensorSpec] = {**reader.specs, **self._zeros}

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        if box.name in self._zeros:
            out[...] = 0
        else:
            self._reader.read_into(box, out)

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()
