"""Adapters merged into the weights that they change: arithmetic, as a step of its own.

The sum over the rank is made in one order, term by term, so that it is the same to the bit however the tensor is cut
into windows, whoever saved it, and on every machine. No library that multiplies matrices promises that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import MismatchError, shown
from ..tensors.counting import Counting
from ..tensors.dtypes import ITEMSIZE, converted, narrowed, storage, widen
from ..tensors.spec import Box, Reader, TensorSpec, whole
from ..tensors.tiling import cut, part
from .adapter import Adapter, Pair

if TYPE_CHECKING:
    from ..tensors.spec import Array

RULE = (
    "W + alpha / rank x (B x A), computed in float32 (float64 of float64): the products are added one by one "
    "in the order of the rank, their sum is scaled and added, and the result is rounded once, to nearest even"
)
"""How an adapter is merged, in words."""

TILE = 1 << 16
"""Elements that are computed at a time: with what is made of them on the way they stay in the processor's caches."""

RECOUNTED = 1 << 26
"""Bytes of a tensor that are read at a time for the count alone."""


class Changed(NamedTuple):
    """What became of a tensor's elements.

    Attributes:
        elements: how many an adapter was added to.
        changed: of those, the ones that are not what the base's would be in the same dtype.
        rounded: of those, the ones whose sum has no place in the dtype.
    """

    elements: int = 0
    changed: int = 0
    rounded: int = 0


class _Matrix(NamedTuple):
    """A view of a matrix' bits."""

    bits: Array
    dtype: str


class Merged(Counting[Changed]):
    """A Reader whose tensors have an adapter merged into them; all others are as they were.

    Args:
        reader: the base's weights, under the Hub's names.
        adapter: the changes.
        dtypes: of tensors that change; others keep their own.

    Raises (while reading):
        MismatchError: a finite number becomes infinite.
    """

    def __init__(self, reader: Reader, adapter: Adapter, dtypes: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self._reader, self.adapter = reader, adapter
        self._pairs: dict[str, list[Pair]] = {}
        for pair in adapter.pairs:
            self._pairs.setdefault(pair.weight.name, []).append(pair)
        self.specs: dict[str, TensorSpec] = {
            name: spec._replace(dtype=(dtypes or {}).get(name, spec.dtype)) if name in self._pairs else spec
            for name, spec in reader.specs.items()
        }

    def into(self, dtypes: Mapping[str, str]) -> Merged:
        """The same, with other dtypes of tensors that change."""
        return Merged(self._reader, self.adapter, dtypes)

    @property
    def names(self) -> list[str]:
        """The tensors that an adapter changes, in order."""
        return [name for name in self.specs if name in self._pairs]

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        if box.name not in self._pairs:
            self._reader.read_into(box, out)
            return
        self._count(box.name, self._merge(box, out))

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader, self.adapter.reader)

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()
        self.adapter.reader.finish()

    def counted(self) -> dict[str, Changed]:
        """What became of every tensor that changes; one not wholly read so far is read for that alone."""
        for name in self.names:
            if self._elements(name) != sum(pair.weight.size for pair in self._pairs[name]):
                self._counted[name] = self._recounted(self.specs[name])
        return {name: self._counted[name] for name in self.names}

    def _recounted(self, spec: TensorSpec) -> Changed:
        import numpy as np

        boxes = (box for box, _ in cut(whole(spec), 0, ITEMSIZE[spec.dtype], RECOUNTED))
        return _total(self._merge(box, np.empty(box.lengths, storage(spec.dtype))) for box in boxes)

    def _merge(self, box: Box, out: Array) -> Changed:
        """Fill a box, and what became of its elements."""
        import numpy as np

        dtype, target = self._reader.specs[box.name].dtype, self.specs[box.name].dtype
        raw = np.empty(box.lengths, storage(dtype))
        self._reader.read_into(box, raw)
        out[...] = raw if dtype == target else converted(raw.reshape(-1), dtype, target).reshape(raw.shape)
        counts = []
        for pair in self._pairs[box.name]:
            if meets := _common(pair.weight, box):
                base, new = (_flat(part(array, box, *meets[1:])) for array in (raw, out))
                counts.append(self._add(pair, meets, _Matrix(base, dtype), _Matrix(new, target)))
        return _total(counts)

    def _add(self, pair: Pair, box: Box, base: _Matrix, out: _Matrix) -> Changed:
        """Merge one pair into a box that it changes, where `out` is the base's numbers so far."""
        import numpy as np

        specs = self.adapter.reader.specs
        kinds = (base.dtype, out.dtype, specs[pair.a].dtype, specs[pair.b].dtype)
        wide = np.dtype("float64" if "float64" in kinds else "float32")
        left, right = self._factors(pair, box, wide.name)
        scale, (rows, columns) = wide.type(pair.scale), out.bits.shape
        step = max(1, TILE // columns)
        counts = []
        for first in range(0, rows, step):
            at = slice(first, first + step)
            weight = widen(base.bits[at], base.dtype, wide.name)
            counts.append(_fill(weight, left[at], right, scale, out._replace(bits=out.bits[at]), pair))
        return _total(counts)

    def _factors(self, pair: Pair, box: Box, wide: str) -> tuple[Array, Array]:
        """What is multiplied to give a box of the Hub's tensor: rows of B and columns of A, or the other way round."""
        (row, column), (rows, columns) = (
            [x - y for x, y in zip(box.offsets[-2:], pair.weight.offsets[-2:], strict=True)],
            box.lengths[-2:],
        )
        if pair.transpose:
            return self._a(pair, row, rows, wide).T.copy(), self._b(pair, column, columns, wide).T.copy()
        return self._b(pair, row, rows, wide), self._a(pair, column, columns, wide)

    def _a(self, pair: Pair, first: int, count: int, wide: str) -> Array:
        return self._numbers(Box(pair.a, (0, first), (pair.rank, count)), wide)

    def _b(self, pair: Pair, first: int, count: int, wide: str) -> Array:
        return self._numbers(Box(pair.b, (first, 0), (count, pair.rank)), wide)

    def _numbers(self, box: Box, wide: str) -> Array:
        import numpy as np

        dtype = self.adapter.reader.specs[box.name].dtype
        raw = np.empty(box.lengths, storage(dtype))
        self.adapter.reader.read_into(box, raw)
        return widen(raw, dtype, wide)


def _fill(weight: Array, left: Array, right: Array, scale: Any, out: _Matrix, pair: Pair) -> Changed:
    """Merge a tile: see RULE."""
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        total = left[:, :1] * right[0]
        term = np.empty_like(total)
        for k in range(1, len(right)):
            np.multiply(left[:, k : k + 1], right[k], out=term)
            total += term
        total *= scale
        total += weight
    bits = narrowed(total, out.dtype)
    kept = widen(bits, out.dtype, total.dtype.name)
    if bool((np.isinf(kept) & np.isfinite(weight)).any()):
        raise MismatchError(
            f"{shown(pair.module)}: with its adapter it holds numbers too large for {out.dtype}",
            "Is --lora-alpha right? --dtype float32 has room for larger ones.",
        )
    changed = int(np.count_nonzero(bits != out.bits))
    out.bits[...] = bits
    return Changed(total.size, changed, int(np.count_nonzero((kept != total) & ~np.isnan(total))))


def _flat(array: Array) -> Array:
    """A view without the leading axis that counts experts, where there is one."""
    return array[0] if array.ndim == 3 else array


def _common(a: Box, b: Box) -> Box | None:
    """What two boxes of a tensor have in common."""
    begin = tuple(map(max, a.offsets, b.offsets))
    stops = zip(a.offsets, a.lengths, b.offsets, b.lengths, strict=True)
    lengths = tuple(min(x + m, y + n) - first for first, (x, m, y, n) in zip(begin, stops, strict=True))
    return Box(a.name, begin, lengths) if min(lengths) > 0 else None


def _total(counts: Iterable[Changed]) -> Changed:
    return Changed(*map(sum, zip(*counts, strict=True))) if (counts := list(counts)) else Changed()
