"""What was done to numbers where they stand: zeros, a constant, a factor, plus or minus one, a rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ...errors import MismatchError
from ...tensors.cast import Cast
from ...tensors.mapped import Renamed
from ...tensors.offset import Offset
from ...tensors.spec import Reader
from .sample import bits, likeness, numbers, probes, same, wide, windows

if TYPE_CHECKING:
    from ...tensors.spec import Array

HALF_STEPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
"""The largest relative error of one rounding; twice that is allowed for a factor and its product."""

THROUGH = {"bfloat16": ("float16",), "float16": ("bfloat16",), "float32": ("bfloat16", "float16"), "float64": ()}
"""Dtypes that numbers of a dtype may have passed through."""

SMALL = 1e-38
"""What a product may be off besides: below it float32 and bfloat16 have fewer digits."""


class Made(NamedTuple):
    """What B's tensor is, made of A's by arithmetic.

    Attributes:
        says: it, in words.
        exact: every element is that, to the bit.
        each: what is said of many tensors of which each has a number of its own; "": it has none.
    """

    says: str
    exact: bool = True
    each: str = ""


def computed(a: Reader, b: Reader, name: str) -> Made | None:
    """What B's tensor is, made of A's by arithmetic; None where it is none of what is tried."""
    if said := _constant(b, name):
        return Made(said, each="all numbers are one, in each tensor another one")
    if a.specs[name].dtype != b.specs[name].dtype:
        said = _cast(a, b, name)
    elif not (said := _offset(a, b, name)):
        if made := _factor(a, b, name):
            return made
        said = _rounded(a, b, name)
    return Made(said) if said else None


def _constant(b: Reader, name: str) -> str:
    """All of one number."""
    first: Array | None = None
    for box in (*probes(b.specs[name]), *windows(b.specs[name])):
        found = bits(b, box).reshape(-1)
        first = found[:1] if first is None else first
        if (found != first).any():
            return ""
    if first is None:
        return ""
    number = float(numbers(b, probes(b.specs[name])[0])[0])
    return f"every number is {number:g}" if number or not first[0] else ""


def _offset(a: Reader, b: Reader, name: str) -> str:
    if len(a.specs[name].shape) != 1 or a.specs[name].dtype not in HALF_STEPS:
        return ""
    for amount, words in ((-1.0, "less one"), (1.0, "plus one")):
        if same(Offset(_alone(a, name), [name], amount), b, [name]):
            return f"A's numbers {words}: a norm about zero was taken for one about one, or the other way round"
    return ""


def _factor(a: Reader, b: Reader, name: str) -> Made | None:
    """A's numbers times one factor."""
    import numpy as np

    factor = _ratio(a, b, name)
    if factor is None:
        return None
    step, exact = 3 * HALF_STEPS[a.specs[name].dtype], abs(np.frexp(factor)[0]) == 0.5  # a power of two rounds nothing
    for box in windows(a.specs[name]):
        x, y = wide(a, box), wide(b, box)
        with np.errstate(over="ignore", invalid="ignore"):
            made = factor * x
            near = np.isfinite(y) & (np.abs(y - made) <= step * np.abs(y) + SMALL)
        if not (near | (y == made) | (np.isnan(y) & np.isnan(x))).all():
            return None
        exact = exact and bool(((y == made) & (np.signbit(y) == np.signbit(made))).all())
    how = "exactly" if exact else "to within rounding"
    each = f"A's numbers times one factor, in each tensor another one, {how}"
    return Made(f"A's numbers times {factor:.6g}, {how}", exact, each)


def _ratio(a: Reader, b: Reader, name: str) -> float | None:
    """The factor that a few numbers show, a power of two if it is as near to one as rounding leaves it."""
    import numpy as np

    place = probes(a.specs[name])[0]
    x, y = numbers(a, place), numbers(b, place)
    largest = int(np.abs(x).argmax())
    if not x[largest] or not y[largest]:
        return None
    used = np.abs(x) > np.abs(x[largest]) / 4
    with np.errstate(over="ignore"):
        factor = float(np.median(y[used] / x[used]))
        if not factor or not np.isfinite(factor) or abs(factor - 1) < 0.01:
            return None
        power = float(np.copysign(np.ldexp(1.0, round(float(np.log2(abs(factor))))), factor))
    return power if abs(factor / power - 1) < 2 * HALF_STEPS[a.specs[name].dtype] else factor


def _rounded(a: Reader, b: Reader, name: str) -> str:
    """A's numbers, rounded to another dtype on the way and widened again."""
    dtype = a.specs[name].dtype
    for through in THROUGH.get(dtype, ()):
        if _equal(Cast(Cast(_alone(a, name), through), dtype), b, name):
            return f"A's numbers, rounded to {through} on the way"
    return ""


def _cast(a: Reader, b: Reader, name: str) -> str:
    """A's numbers, rounded to the dtype that B has."""
    dtype = b.specs[name].dtype
    if dtype not in HALF_STEPS or a.specs[name].dtype not in HALF_STEPS:
        return ""
    if _equal(Cast(_alone(a, name), dtype), b, name):
        return f"A's numbers, rounded to {dtype}"
    if _equal(a, Cast(_alone(b, name), a.specs[name].dtype), name):
        return f"A's are B's numbers, rounded to {a.specs[name].dtype}"
    return ""


def _alone(reader: Reader, name: str) -> Reader:
    """A Reader of one tensor: steps above it look at one specification, and not at those of a whole model."""
    return Renamed(reader, {name: name})


def _equal(made: Reader, b: Reader, name: str) -> bool:
    """Whether they are, where A's numbers have a place in the dtype at all."""
    try:
        return likeness(made, b, probes(b.specs[name])).equal and same(made, b, [name])
    except MismatchError:
        return False
