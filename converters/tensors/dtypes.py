"""Dtypes by torch's names without the prefix ("bfloat16"), and bits read as numbers of one.

Exact widening, how far two arrays lie apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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
}
"""Bytes per element of every dtype that is read at all."""

FLOATS = ("float32", "bfloat16", "float16", "float64")
"""The dtypes a model's weights may have."""


def storage(dtype: str) -> str:
    """The numpy dtype that carries a dtype's bits: "bfloat16" -> "uint16"."""
    return f"uint{8 * ITEMSIZE[dtype]}"


def widen(bits: Array, dtype: str, wide: str) -> Array:
    """Bits (or numbers already widened) as numbers of a wider float type; exact, NaN payloads included."""
    import numpy as np

    if bits.dtype.kind == "f":
        return bits.astype(wide)
    if dtype == "bfloat16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(wide)
    return bits.view(dtype).astype(wide)


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
