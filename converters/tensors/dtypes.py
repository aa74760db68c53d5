"""Dtypes by torch's names without the prefix ("bfloat16"), and bits read as numbers of one.

Exact widening, rounding to nearest even, how far two arrays lie apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .spec import Array, TensorSpec

ITEMSIZE = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "float8_e8m0fnu": 1,
}
"""Bytes per element of every dtype that is read at all."""

FLOATS = ("float32", "bfloat16", "float16", "float64")
"""The dtypes a model's weights may have."""


class TorchDtype(NamedTuple):
    """torch's dtype of that name, where torch is not: in what is pickled, torch's own is written for it."""

    name: str


def storage(dtype: str) -> str:
    """The numpy dtype that carries a dtype's bits: "bfloat16" -> "uint16"."""
    return f"uint{8 * ITEMSIZE[dtype]}"


def widen(bits: Array, dtype: str, wide: str) -> Array:
    """Bits (or numbers already widened) as numbers of a wider float type; exact, NaN payloads included."""
    import numpy as np

    if bits.dtype.kind == "f":
        return bits.astype(wide)
    if dtype.startswith("float8"):
        from .fp8.codes import numbers

        return numbers(bits, dtype).astype(wide)
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(wide, copy=False)
    return bits.view(dtype).astype(wide)


def converted(bits: Array, dtype: str, target: str) -> Array:
    """Bits in another dtype, as torch casts on a CPU: by way of float32, unless the other is float64.

    So a float64 is rounded twice on its way to 16 bits. NaNs, too, are torch's to the bit; only where torch makes a
    bfloat16 of a float64 they are one of two, depending on the place in the tensor, and here always the same.
    """
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        number = widen(bits, dtype, "float64" if target == "float64" else "float32")
    result, nan = narrowed(number, target), np.isnan(number)
    if nan.any() and target == "bfloat16":
        result[nan] = 0x7FC0 if dtype == "float16" else 0xFFFF
    elif nan.any() and dtype == "float16":
        result[nan] |= _QUIET[target]
    return result


_QUIET = {"float32": 1 << 22, "float64": 1 << 51}
"""The bit that a processor sets in a NaN that it widens. numpy, which widens a float16 by itself, does not."""


def infinite(bits: Array, dtype: str) -> int:
    """How many of the numbers are infinite."""
    import numpy as np

    if dtype in _HALVES:
        return int(np.count_nonzero(bits & 0x7FFF == _HALVES[dtype].infinite))
    return int(np.count_nonzero(np.isinf(bits.view(dtype))))


def narrowed(number: Array, dtype: str) -> Array:
    """The bits of float32 or float64 numbers in a dtype that is not wider, rounded once, to nearest even.

    What is too large becomes infinite. A NaN stays one: of 16 bits, its sign and the upper bits of its payload, quiet.
    """
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        if dtype not in _HALVES:
            return number.astype(dtype).view(storage(dtype))
        near = number.astype(dtype).view(np.uint16) if dtype == "float16" else _bfloat16(number)
        nan = np.isnan(number)
        return np.where(nan, _nans(number, _HALVES[dtype]), near) if nan.any() else near


class _Half(NamedTuple):
    surplus: int  # by how many bits the payload of a float32 is longer
    infinite: int  # the bits of infinity; above them are the NaNs


_HALVES = {"bfloat16": _Half(16, 0x7F80), "float16": _Half(13, 0x7C00)}
"""The dtypes of 16 bits."""


def _nans(number: Array, half: _Half) -> Array:
    """The bits that a NaN leaves; of another number, anything."""
    import numpy as np

    payload = 0x7FFF ^ half.infinite
    bits = number.astype(np.float32).view(np.uint32)
    quiet = half.infinite | (payload + 1) >> 1
    return (bits >> 16 & 0x8000 | quiet | bits >> half.surplus & payload).astype(np.uint16)


def _bfloat16(number: Array) -> Array:
    """The upper half of float32, after half a last place was added to it; less one bit where that place is even."""
    import numpy as np

    bits = _to_odd(number).view(np.uint32)
    near = bits >> 16
    near &= 1
    near += 0x7FFF
    near += bits
    near >>= 16
    return near.astype(np.uint16)


def _to_odd(number: Array) -> Array:
    """As float32; of what float32 does not hold exactly, the neighbour whose last bit is set.

    Then rounding it further, to bfloat16, is as if it had been rounded once.
    """
    import numpy as np

    near = number.astype(np.float32, copy=False)
    if number.dtype == np.float32:
        return near
    bits = near.view(np.uint32)
    inexact = (near.astype(np.float64) != number) & np.isfinite(number)
    beyond = inexact & (np.abs(near.astype(np.float64)) > np.abs(number))
    return np.where(inexact, (bits - beyond.astype(np.uint32)) | 1, bits).view(np.float32)


def largest_difference(a: Array, b: Array, dtype: str) -> float | None:
    """The largest finite |a - b| of two arrays of one dtype; None where there is none."""
    import numpy as np

    with np.errstate(invalid="ignore", over="ignore"):
        gap = np.abs(widen(a, dtype, "float64") - widen(b, dtype, "float64"))
    finite = gap[np.isfinite(gap)]
    return float(finite.max()) if finite.size else None


def main_dtype(specs: Mapping[str, TensorSpec]) -> str:
    """The dtype of most bytes: what config.json states."""
    total: dict[str, int] = {}
    for spec in specs.values():
        total[spec.dtype] = total.get(spec.dtype, 0) + spec.nbytes
    return max(total, key=lambda dtype: total[dtype])
