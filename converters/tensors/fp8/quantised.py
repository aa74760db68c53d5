"""Plain tensors as FP8 numbers and their scales: arithmetic, as a step of its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from ...errors import MismatchError, shown
from ..counting import Rounded, Rounding
from ..dtypes import storage, widen
from ..spec import Box, Reader, TensorSpec
from ..tiling import part
from .codes import E4M3, decoded, encoded, scale_numbers, stored_scales
from .scaled import Scaled

if TYPE_CHECKING:
    from ..spec import Array

RULE = (
    "each block's scale is its largest size / 448, rounded to the dtype that it is stored in (as a power of two: the "
    "next that is not smaller; 1 where that is 0); each number is divided by it in float32 and rounded to the nearest "
    "FP8 number, to even, 448 at most"
)
"""How FP8 numbers are made, in words."""

TILE = 1 << 19
"""Elements that are read at a time, at least a block: so much memory is taken beside the window that is filled."""

BLOCK = 1 << 16
"""Elements that are computed at a time, at least a row: what is made of them on the way stays in cache."""


class Quantised(Rounding):
    """A Reader of FP8 tensors and their scales over one of plain tensors; all else is as it was.

    Whole blocks are read around every box, so nothing depends on how a tensor is cut into boxes. An element counts as
    rounded if FP8 number times scale is not what it was.

    Args:
        reader: the one below.
        scaled: its tensors that become FP8, of two axes or more, and what their scales are called.
        dtypes: name of scales -> their dtype.
        power_of_two: scales are powers of two, whatever their dtype.

    Raises (while reading):
        MismatchError: a number is infinite or none.
    """

    def __init__(
        self, reader: Reader, scaled: Collection[Scaled], dtypes: Mapping[str, str], *, power_of_two: bool = False
    ) -> None:
        super().__init__()
        self._reader = reader
        self._scaled = {one.name: one for one in scaled}
        self._of = {one.scale: one for one in scaled}
        self._power_of_two = power_of_two
        self.specs: dict[str, TensorSpec] = {}
        for name, spec in reader.specs.items():
            one = self._scaled.get(name)
            self.specs[name] = spec._replace(dtype=E4M3) if one else spec
            if one:
                self.specs[one.scale] = TensorSpec(one.scale, one.scale_shape(spec.shape), dtypes[one.scale])

    @property
    def computed(self) -> list[str]:
        """The tensors that become FP8, in order; their scales are not counted."""
        return [name for name in self.specs if name in self._scaled]

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        if box.name in self._scaled:
            shape = self.specs[box.name].shape
            for tile in self._scaled[box.name].tiles(box, shape, TILE):
                codes, count = self._compute(tile)
                self._count(box.name, count)
                part(out, box, tile.offsets, tile.lengths)[...] = codes
        elif box.name in self._of:
            self._read_scales(self._of[box.name], box, out)
        else:
            self._reader.read_into(box, out)

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()

    def _read_scales(self, one: Scaled, box: Box, out: Array) -> None:
        shape = self.specs[one.name].shape
        for tile in one.tiles(one.elements_of(box, shape), shape, TILE):
            at = one.scales_of(tile, shape)
            part(out, box, at.offsets, at.lengths)[...] = self._scales(one, self._numbers(tile))

    def _compute(self, box: Box) -> tuple[Array, Rounded]:
        """The codes of a box that the blocks it meets are not much larger than, and what became of its elements."""
        import numpy as np

        one, shape = self._scaled[box.name], self.specs[box.name].shape
        at = one.scales_of(box, shape)
        around = one.elements_of(at, shape)
        number = self._numbers(around)
        scale = scale_numbers(self._scales(one, number), self.specs[one.scale].dtype)
        inside = part(number, around, box.offsets, box.lengths)
        row, column = (
            (box.offsets[axis] + np.arange(box.lengths[axis])) // size - at.offsets[axis]
            for axis, size in zip((-2, -1), one.blocks(shape), strict=True)
        )
        wide, codes, rounded = scale[..., column], np.empty(box.lengths, np.uint8), 0
        step = max(1, BLOCK // max(1, box.lengths[-1]))
        for first in range(0, box.lengths[-2], step):
            band = (..., slice(first, first + step), slice(None))
            factor, source = wide[..., row[band[1]], :], inside[band]
            codes[band] = found = encoded(source / factor)
            rounded += int(np.count_nonzero(decoded(found) * factor != source))
        return codes, Rounded(box.size, rounded)

    def _numbers(self, box: Box) -> Array:
        """The numbers of a box as float32."""
        import numpy as np

        dtype = self._reader.specs[box.name].dtype
        raw = np.empty(box.lengths, storage(dtype))
        self._reader.read_into(box, raw)
        return widen(raw, dtype, "float32")

    def _scales(self, one: Scaled, number: Array) -> Array:
        """The bits of the scales of whole blocks."""
        import numpy as np

        size = np.abs(number)
        rows, columns = one.blocks(self.specs[one.name].shape)
        for axis, step in ((-1, columns), (-2, rows)):  # along rows first, which is the quick way
            size = np.maximum.reduceat(size, np.arange(0, size.shape[axis], step), axis=axis)
        if not bool(np.isfinite(size).all()):
            raise MismatchError(
                f"{shown(one.name)}: holds numbers that are NaN, infinite or too large, which FP8 has no place for",
                "Leave --fp8-like out: the plain weights are converted as they are.",
            )
        return stored_scales(size, self.specs[one.scale].dtype, self._power_of_two)
