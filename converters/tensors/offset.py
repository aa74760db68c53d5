"""A number added to every element of some tensors, and dtypes of single tensors: arithmetic, as a step of its own.

All else is moved. megatron-core keeps the output norm of a Gated DeltaNet minus one, which is no move; and releases
keep some small tensors in a wider dtype than the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ..errors import MismatchError, shown
from .counting import Rounded, Rounding
from .dtypes import narrowed, storage, widen
from .spec import Box, Reader

if TYPE_CHECKING:
    from .spec import Array

RULE = "computed in float32 (float64 of float64) and rounded once, to nearest even"
"""How a number is added, in words."""


class Offset(Rounding):
    """A Reader whose tensors in `names` are each element + amount; all others are as they were.

    A NaN stays one, an infinite number what it is.

    Args:
        reader: the one below.
        names: the tensors to which `amount` is added.
        amount: 1.0 or -1.0.
        dtypes: dtypes of single tensors, named or not; else a tensor keeps its own.

    Raises (while reading):
        MismatchError: a finite number becomes infinite in the narrower dtype.
    """

    def __init__(
        self, reader: Reader, names: Collection[str], amount: float, dtypes: Mapping[str, str] | None = None
    ) -> None:
        super().__init__()
        self._reader = reader
        self.amount = amount
        self._names = frozenset(names)
        self.specs = dict(reader.specs)
        for name, dtype in (dtypes or {}).items():
            self.specs[name] = self.specs[name]._replace(dtype=dtype)
        changed = (name for name, spec in self.specs.items() if spec.dtype != reader.specs[name].dtype)
        self._computed = {*self._names, *changed}

    @property
    def names(self) -> list[str]:
        """The tensors to which the amount is added, in order."""
        return [name for name in self.specs if name in self._names]

    @property
    def computed(self) -> list[str]:
        """The tensors that are not merely moved, in order."""
        return [name for name in self.specs if name in self._computed]

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        if box.name not in self._computed:
            self._reader.read_into(box, out)
            return
        result, count = self._compute(box)
        self._count(box.name, count)
        out[...] = result

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()

    def _compute(self, box: Box) -> tuple[Array, Rounded]:
        """The bits of a box, and what became of its elements."""
        import numpy as np

        dtype, target = self._reader.specs[box.name].dtype, self.specs[box.name].dtype
        raw = np.empty(box.lengths, storage(dtype))
        self._reader.read_into(box, raw)
        number = widen(raw, dtype, "float64" if "float64" in (dtype, target) else "float32")
        total, inexact = _sum(number, self.amount if box.name in self._names else 0.0)
        bits = narrowed(total, target)
        kept = widen(bits, target, total.dtype.name)
        if bool((np.isinf(kept) & np.isfinite(total)).any()):
            raise MismatchError(
                f"{shown(box.name)}: holds numbers too large for {target}",
                "Give --dtype float32: it has room for them.",
            )
        return bits, Rounded(box.size, int((inexact | ((kept != total) & ~np.isnan(total))).sum()))


def _sum(number: Array, amount: float) -> tuple[Array, Array]:
    """The sum in the numbers' own dtype, and where it is not exact (Knuth's error-free transformation)."""
    import numpy as np

    if not amount:
        return number, np.zeros(number.shape, bool)
    added = number.dtype.type(amount)
    with np.errstate(invalid="ignore", over="ignore"):
        total = number + added
        rest = total - number
        error = (number - (total - rest)) + (added - rest)
    return total, (error != 0) & np.isfinite(number)
