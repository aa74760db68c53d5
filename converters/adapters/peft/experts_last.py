"""The experts' B as peft lays them out: [out, rank * experts], the experts of one column of B beside each other.

Everything else here has experts on a leading axis: [experts, out, rank].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ...tensors.spec import Box, Reader, TensorSpec

if TYPE_CHECKING:
    from ...tensors.spec import Array

HELD = 64 << 20
"""Bytes of a tensor that is held after it was read: its experts are asked for one after the other."""


class ExpertsLast:
    """A Reader in which some tensors [E, out, r] of the one below are [out, r * E].

    Args:
        reader: the one below.
        names: of those tensors.
    """

    def __init__(self, reader: Reader, names: frozenset[str]) -> None:
        self._reader = reader
        self._names = names
        self.specs: dict[str, TensorSpec] = {
            name: _last(spec) if name in names else spec for name, spec in reader.specs.items()
        }

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        if box.name not in self._names:
            self._reader.read_into(box, out)
            return
        (row, column), (rows, columns) = box.offsets, box.lengths
        experts, _, rank = self._reader.specs[box.name].shape
        below = _empty((experts, rows, rank), out)
        self._reader.read_into(Box(box.name, (0, row, 0), below.shape), below)
        out[...] = below.transpose(1, 2, 0).reshape(rows, -1)[:, column : column + columns]

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()


class ExpertsFirst:
    """The other way: some tensors [out, r * E] of the reader below are [E, out, r].

    Args:
        reader: the one below.
        experts: name -> E.
    """

    def __init__(self, reader: Reader, experts: Mapping[str, int]) -> None:
        self._reader = reader
        self._experts = experts
        self._held: tuple[Box, Array] | None = None
        self.specs: dict[str, TensorSpec] = {
            name: _first(spec, experts[name]) if name in experts else spec for name, spec in reader.specs.items()
        }

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        if box.name not in self._experts:
            self._reader.read_into(box, out)
            return
        (expert, row, column), (experts, rows, columns) = box.offsets, box.lengths
        found = self._rows(Box(box.name, (row, 0), (rows, self._reader.specs[box.name].shape[1])), out)
        apart = found.reshape(rows, -1, self._experts[box.name])
        out[...] = apart[:, column : column + columns, expert : expert + experts].transpose(2, 0, 1)

    def _rows(self, rows: Box, like: Array) -> Array:
        """Whole rows of the tensor below: they hold all experts, and the next one is likely to be asked for next."""
        held = self._held  # another thread may put another one in its place
        if held is not None and held[0] == rows:
            return held[1]
        found = _empty(rows.lengths, like)
        self._reader.read_into(rows, found)
        if found.nbytes <= HELD:
            self._held = rows, found
        return found

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def finish(self) -> None:
        """See Reader."""
        self._held = None
        self._reader.finish()


def _last(spec: TensorSpec) -> TensorSpec:
    experts, out, rank = spec.shape
    return spec._replace(shape=(out, rank * experts))


def _first(spec: TensorSpec, experts: int) -> TensorSpec:
    out, columns = spec.shape
    return spec._replace(shape=(experts, out, columns // experts))


def _empty(shape: tuple[int, ...], like: Array) -> Array:
    import numpy as np

    return np.empty(shape, like.dtype)
