"""NaN and infinite numbers, counted on the way.

Of every block two maxima are taken, of its bits as unsigned and as signed integers: only a special number reaches the
bits of infinity in either.
Only where one does is anything counted.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from ..errors import shown
from .dtypes import ITEMSIZE, storage

if TYPE_CHECKING:
    from .spec import Array

INFINITY = {"bfloat16": 0x7F80, "float16": 0x7C00, "float32": 0x7F800000, "float64": 0x7FF0000000000000}
"""The bits of infinity; those of a NaN are larger. With the sign bit the same holds of the negative ones."""

BLOCK = 1 << 19
"""Bytes that are tested at a time, so that the second maximum finds them in cache."""

LISTED = 5
"""Tensors that a sentence names."""


class Count(NamedTuple):
    """How many special numbers a tensor has."""

    nan: int = 0
    infinite: int = 0


class Specials:
    """Counts by tensor; asked by many threads at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.found: dict[str, Count] = {}

    def __getstate__(self) -> dict[str, Count]:
        """For another process."""
        return self.found

    def __setstate__(self, found: dict[str, Count]) -> None:
        self._lock, self.found = threading.Lock(), found

    def look(self, name: str, dtype: str, data: memoryview) -> None:
        """Look through the bits of some elements of a tensor."""
        import numpy as np

        infinity = INFINITY.get(dtype)
        if infinity is None:
            return
        bits, step = np.frombuffer(data, storage(dtype)), BLOCK // ITEMSIZE[dtype]
        signed, negative = bits.view(storage(dtype).removeprefix("u")), infinity | 1 << 8 * ITEMSIZE[dtype] - 1
        for at in range(0, len(bits), step):
            if bits[at : at + step].max() >= negative or signed[at : at + step].max() >= infinity:
                self.add(name, _count(bits[at : at + step], infinity, negative - infinity))

    def add(self, name: str, more: Count) -> None:
        """Count more of a tensor's."""
        with self._lock:
            known = self.found.get(name, Count())
            self.found[name] = Count(known.nan + more.nan, known.infinite + more.infinite)

    def __str__(self) -> str:
        """The worst tensors by name, and how many more there are."""
        worst = sorted(self.found.items(), key=lambda entry: (-sum(entry[1]), entry[0]))
        listed = [f"{shown(name)} has {_words(count)}" for name, count in worst[:LISTED]]
        return "; ".join(listed + [f"and {len(worst) - LISTED} more tensors"] * (len(worst) > LISTED))


def _count(bits: Array, infinity: int, sign: int) -> Count:
    magnitude = bits & (sign - 1)
    return Count(int((magnitude > infinity).sum()), int((magnitude == infinity).sum()))


def is_nan(numbers: Array, dtype: str) -> Array:
    """Which of some numbers, or of their bits, are NaN; none of integers."""
    import numpy as np

    if dtype not in INFINITY:
        return np.zeros(len(numbers), bool)
    return (numbers.view(storage(dtype)) & ((1 << 8 * ITEMSIZE[dtype] - 1) - 1)) > INFINITY[dtype]


def _words(count: Count) -> str:
    return " and ".join(
        f"{number:,} {kind}" for number, kind in ((count.nan, "NaN"), (count.infinite, "infinite")) if number
    )
