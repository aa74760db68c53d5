"""Readers that compute count what becomes of the elements, in whatever thread or process they do it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from operator import add
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from .spec import Box, TensorSpec, whole
from .tiling import cut

if TYPE_CHECKING:
    from .spec import Array

Count = TypeVar("Count", bound=tuple[int, ...])
"""A NamedTuple of numbers that add up; the first is how many elements were computed."""


class Counting(Generic[Count]):
    """Keeps a Count for each tensor; a Reader's base."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counted: dict[str, Count] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which tells with `hand_over` what it has computed."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_lock", "_counted")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock, self._counted = threading.Lock(), {}

    def hand_over(self) -> dict[str, Count]:
        """What this process has computed since the last call, for `take_over` in the one that the step came from."""
        with self._lock:
            counted, self._counted = self._counted, {}
        return counted

    def take_over(self, counted: Mapping[str, Count]) -> None:
        """Count in what another process has computed."""
        for name, count in counted.items():
            self._count(name, count)

    def _count(self, name: str, more: Count) -> None:
        with self._lock:
            known = self._counted.get(name)
            self._counted[name] = more if known is None else type(more)(*map(add, known, more))

    def _elements(self, name: str) -> int:
        """How many elements of a tensor were computed so far."""
        known = self._counted.get(name)
        return known[0] if known else 0


PART = 1 << 19
"""Elements that are computed at a time where they are only counted."""


class Rounded(NamedTuple):
    """What became of a tensor's elements.

    Attributes:
        elements: how many were computed.
        rounded: of those, the ones whose exact result has no place in the dtype; from them the source's element cannot
            be told again.
    """

    elements: int = 0
    rounded: int = 0


class Rounding(Counting[Rounded]):
    """The part of a Reader that computes whole tensors and counts what it has rounded.

    A subclass says which tensors those are (`computed`), and computes a box of one (`_compute`).
    """

    specs: Mapping[str, TensorSpec]

    @property
    def computed(self) -> Sequence[str]:
        """The tensors that are not merely moved, in order."""
        raise NotImplementedError

    def _compute(self, box: Box) -> tuple[Array, Rounded]:
        """The bits of a box, and what became of its elements."""
        raise NotImplementedError

    def counted(self) -> dict[str, Rounded]:
        """What became of every tensor that is computed; one not wholly read so far is read for that alone."""
        for name in self.computed:
            spec = self.specs[name]
            if self._elements(name) != prod(spec.shape):
                parts = [self._compute(box)[1] for box, _ in cut(whole(spec), 0, 1, PART)]
                self._counted[name] = Rounded(*map(sum, zip(*parts, strict=True)))
        return {name: self._counted.get(name, Rounded()) for name in self.computed}  # of no element nothing was counted


def all_counts(steps: Iterable[Rounding]) -> dict[str, Rounded]:
    """The counts of several steps; of a tensor that several compute, those of all of them together."""
    total: dict[str, Rounded] = {}
    for step in steps:
        for name, count in step.counted().items():
            known = total.get(name, Rounded())
            total[name] = Rounded(known.elements + count.elements, known.rounded + count.rounded)
    return total
