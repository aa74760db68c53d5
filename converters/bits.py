"""Bits read as numbers: exact widening, and how far two arrays lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .tensors import Array


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
