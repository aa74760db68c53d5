"""FP8 numbers: codes of e4m3 as float32 and back, and the scales that stand beside them.

e4m3 (float8_e4m3fn) has a sign, four bits of exponent and three of mantissa, no infinity, one NaN of either sign; its
largest number is 448. A scale is stored in float32, bfloat16 or as an exponent alone (float8_e8m0fnu).
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from ..dtypes import narrowed, widen

if TYPE_CHECKING:
    from ..spec import Array

E4M3 = "float8_e4m3fn"
E8M0 = "float8_e8m0fnu"
"""A power of two: byte b is 2^(b - 127), 255 is NaN."""

LARGEST = 448.0
"""Of e4m3."""

SCALES = ("float32", "bfloat16", E8M0)
"""The dtypes of scales."""

_LEAST_NORMAL = 2.0**-6
_SUBNORMAL = 2.0**14
"""A float32 of this size has steps of 2^-9, as e4m3 has below its least normal number."""


@cache
def table() -> Array:
    """The float32 value of each of the 256 codes."""
    import numpy as np

    codes = np.arange(256)
    exponent, mantissa = codes >> 3 & 15, codes & 7
    size = np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)
    size[codes & 0x7F == 0x7F] = np.nan
    return np.where(codes < 128, size, -size).astype(np.float32)


def decoded(codes: Array) -> Array:
    """Codes as float32 numbers."""
    import numpy as np

    return np.take(table(), codes, mode="clip")  # all are in range; a third of the time of an index


def encoded(number: Array) -> Array:
    """The codes of float32 numbers, rounded to nearest even; what is beyond 448 becomes 448, a NaN stays one."""
    import numpy as np

    size = np.minimum(np.abs(number), np.float32(LARGEST))  # hands a NaN on
    bits = size.view(np.uint32)
    normal = (bits + 0x7FFFF + (bits >> 20 & 1) >> 20) - (120 << 3)
    with np.errstate(invalid="ignore"):
        small = (size + np.float32(_SUBNORMAL)).view(np.uint32) - (141 << 23)
    code: Array = np.where(size < np.float32(_LEAST_NORMAL), small, normal)
    code[np.isnan(size)] = 0x7F
    signed: Array = code | np.signbit(number).astype(np.uint32) << 7
    return signed.astype(np.uint8)


def numbers(bits: Array, dtype: str) -> Array:
    """The bits of any dtype of eight bits as float32, exactly."""
    import numpy as np

    if dtype == E4M3:
        return decoded(bits)
    if dtype != E8M0:  # float8_e5m2 is the upper half of a float16
        return (bits.astype(np.uint16) << 8).view(np.float16).astype(np.float32)
    number: Array = np.ldexp(np.float32(1), np.minimum(bits, 254).astype(np.int32) - 127)
    number[bits == 255] = np.nan
    return number


def scale_numbers(bits: Array, dtype: str) -> Array:
    """Stored scales as float32, exactly."""
    return widen(bits, dtype, "float32")


def stored_scales(largest: Array, dtype: str, power_of_two: bool = False) -> Array:
    """The bits of the scales of blocks: largest / 448, computed in float32, in the dtype that they are stored in.

    To nearest even; as a power of two, the next one that is not smaller. 1 where that is 0.

    Args:
        largest: the largest size of a number in each block, float32 and finite.
        dtype: of the scales.
        power_of_two: of a dtype that need not be one.
    """
    import numpy as np

    scale = largest / np.float32(LARGEST)
    if power_of_two or dtype == E8M0:
        fraction, exponent = np.frexp(scale)  # in [0.5, 1)
        exponent = np.clip(np.where(fraction == 0.5, exponent - 1, exponent), -127, 127)
        if dtype == E8M0:
            return np.where(scale == 0, 127, exponent + 127).astype(np.uint8)
        scale = np.where(scale == 0, scale, np.ldexp(np.float32(1), exponent))
    bits = narrowed(scale, dtype)
    return np.where(widen(bits, dtype, "float32") == 0, narrowed(np.ones_like(scale), dtype), bits)
