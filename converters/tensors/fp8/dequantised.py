"""FP8 numbers times their scales, as plain tensors: arithmetic, as a step of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from ...errors import MismatchError, shown
from ..counting import Rounded, Rounding
from ..dtypes import narrowed, storage, widen
from ..spec import Box, Reader, TensorSpec
from ..tiling import cut, part
from .codes import decoded, scale_numbers
from .scaled import Scaled

if TYPE_CHECKING:
    from ..spec import Array

RULE = "FP8 number times scale, multiplied in float32 and rounded once, to nearest even"
"""How a plain number is made, in words."""

BAND = 1 << 19
"""Elements that are read at a time, at least a row: so much memory is taken beside the window that is filled."""

BLOCK = 1 << 16
"""Elements that are computed at a time, at least a row: what is made of them on the way stays in cache."""


class Dequantised(Rounding):
    """A Reader of plain tensors over one of FP8 tensors and their scales; the scales are gone, all else is as it was.

    A product that float32 does not hold exactly, as only that with a scale of more than 20 bits is, is counted as
    rounded, too.

    Args:
        reader: the one below.
        scaled: its tensors of FP8 numbers, of two axes or more, and their scales.
        dtype: of the plain tensors: "bfloat16" or "float32".

    Raises (while reading):
        MismatchError: a scale is negative or no number, or a product too large for the dtype.
    """

    def __init__(self, reader: Reader, scaled: Collection[Scaled], dtype: str) -> None:
        super().__init__()
        self._reader = reader
        self._scaled = {one.name: one for one in scaled}
        self.dtype = dtype
        gone = {one.scale for one in scaled}
        self.specs: dict[str, TensorSpec] = {
            name: spec._replace(dtype=dtype) if name in self._scaled else spec
            for name, spec in reader.specs.items()
            if name not in gone
        }

    @property
    def computed(self) -> list[str]:
        """The tensors that were FP8, in order."""
        return [name for name in self.specs if name in self._scaled]

    @property
    def scaled(self) -> list[Scaled]:
        """The FP8 tensors and their scales."""
        return [self._scaled[name] for name in self.computed]

    @property
    def scale_dtypes(self) -> list[str]:
        """The dtypes of the scales."""
        return sorted({self._reader.specs[one.scale].dtype for one in self._scaled.values()})

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        if box.name not in self._scaled:
            self._reader.read_into(box, out)
            return
        for band, _ in cut(box, 0, 1, BAND):
            result, count = self._compute(band)
            self._count(box.name, count)
            part(out, box, band.offsets, band.lengths)[...] = result

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()

    def _compute(self, box: Box) -> tuple[Array, Rounded]:
        """The bits of a box, and what became of its elements."""
        import numpy as np

        codes, scales = np.empty(box.lengths, np.uint8), self._scales(box)
        self._reader.read_into(box, codes)
        dtype, exact, rounded = self.specs[box.name].dtype, _is_exact(scales), 0
        result = np.empty(box.lengths, storage(dtype))
        for at, factor in _parts(box, scales, self._scaled[box.name].blocks(self.specs[box.name].shape)):
            result[at], inexact = _product(box.name, codes[at], factor, dtype, exact=exact)
            rounded += inexact
        return result, Rounded(box.size, rounded)

    def _scales(self, box: Box) -> Array:
        """The scales of all blocks that a box meets, as float32."""
        import numpy as np

        scaled = self._scaled[box.name]
        at = scaled.scales_of(box, self.specs[box.name].shape)
        dtype = self._reader.specs[scaled.scale].dtype
        bits = np.empty(at.lengths, storage(dtype))
        self._reader.read_into(at, bits)
        number = scale_numbers(bits, dtype)
        if not bool((np.isfinite(number) & (number >= 0)).all()):
            raise MismatchError(
                f"{shown(scaled.scale)}: holds a scale that is negative or no number",
                "The file is damaged: download or save it again.",
            )
        return number


def _parts(box: Box, scales: Array, blocks: tuple[int, int]) -> Iterator[tuple[tuple[int | slice, ...], Array]]:
    """A box in parts of some rows, as indices, and the factor of every element of each, of a shape that broadcasts."""
    import numpy as np

    rows, columns = (o + np.arange(n) for o, n in zip(box.offsets[-2:], box.lengths[-2:], strict=True))
    row, column = (at // size - (at[:1] // size) for at, size in zip((rows, columns), blocks, strict=True))
    step = max(1, BLOCK // max(1, len(columns)))
    for outer in np.ndindex(box.lengths[:-2]):
        # One column of scales serves all columns of the box, as where each row has a scale of its own.
        wide = scales[outer] if scales.shape[-1] == 1 else scales[outer][:, column]
        for first in range(0, len(rows), step):
            taken = slice(first, first + step)
            yield (*outer, taken), wide[row[taken]]


def _product(name: str, codes: Array, factor: Array, dtype: str, *, exact: bool) -> tuple[Array, int]:
    """The bits of codes times factors in a dtype, and how many of them are not the exact product.

    `exact`: float32 holds that.
    """
    import numpy as np

    number = decoded(codes)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        product = number * factor
    bits = narrowed(product, dtype)
    kept = widen(bits, dtype, "float32")
    if bool((np.isinf(kept)).any()):
        raise MismatchError(
            f"{shown(name)}: FP8 numbers times their scales are too large for {dtype}",
            "The scales are damaged: download or save the file again.",
        )
    wrong = kept != (product if exact else number.astype(np.float64) * factor)
    return bits, int(np.count_nonzero(wrong & ~np.isnan(number)))


def _is_exact(scale: Array) -> bool:
    """Whether float32 holds the product of every scale and every number of e4m3: four bits times at most twenty."""
    import numpy as np

    tiny = (scale < 2.0**-110) & (scale > 0)
    return not bool(((scale.view(np.uint32) & 0xF) != 0).any() or tiny.any())
