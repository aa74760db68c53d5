"""Readers side by side: what a checkpoint holds, and what goes along with it."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from ...tensors.mapped import Renamed
from ...tensors.spec import Box, Reader, TensorSpec

if TYPE_CHECKING:
    from ...tensors.spec import Array


class Union:
    """A Reader of the tensors of several, which share no name.

    Args:
        readers: in the order in which their tensors come.
    """

    def __init__(self, *readers: Reader) -> None:
        self.below = readers
        self._by_name = {name: reader for reader in readers for name in reader.specs}
        self.specs: dict[str, TensorSpec] = {name: spec for reader in readers for name, spec in reader.specs.items()}
        assert len(self.specs) == sum(len(reader.specs) for reader in readers)

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        self._by_name[box.name].read_into(box, out)

    def finish(self) -> None:
        """See Reader."""
        for reader in self.below:
            reader.finish()


def only(reader: Reader, names: Collection[str]) -> Renamed:
    """A Reader of some of the tensors of another."""
    return Renamed(reader, {name: name for name in reader.specs if name in names})


def without(reader: Reader, names: Collection[str]) -> Reader:
    """A Reader of all tensors of another but some."""
    if not names:
        return reader
    return Renamed(reader, {name: name for name in reader.specs if name not in names})
