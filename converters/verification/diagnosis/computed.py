"""What was done to numbers where they stand: zeros, a constant, a factor, plus or minus one, a rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...checkpoint.absent.union import only
from ...errors import MismatchError
from ...tensors.cast import Cast
from ...tensors.offset import Offset
from ...tensors.spec import Reader
from .sample import bits, likeness, numbers, probes, same, windows

if TYPE_CHECKING:
    from ...tensors.spec import Array

HALF_STEPS = {"bfloat16": 2.0**-8, "float16": 2.0**-11, "float32": 2.0**-24, "float64": 2.0**-53}
"""The largest relative error of one rounding; twice that is allowed for a factor and its product."""

THROUGH = {"bfloat16": ("float16",), "float16": ("bfloat16",), "float32": ("bfloat16", "float16"), "float64": ()}
"""Dtypes that numbers of a dtype may have passed through."""


def computed(a: Reader, b: Reader, name: str) -> str:
    """What B's tensor is, made of A's by arithmetic; "" where it is none of what is tried."""
    if said := _constant(b, name):
        return said
    if a.specs[name].dtype != b.specs[name].dtype:
        return _cast(a, b, name)
    return next(filter(None, _made(a, b, name)), "")


def _made(a: Reader, b: Reader, name: str) -> Iterator[str]:
    yield _offset(a, b, name)
    yield _factor(a, b, name)
    yield _rounded(a, b, name)


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
        if same(Offset(only(a, [name]), [name], amount), b, [name]):
            return f"A's numbers {words}: a norm about zero was taken for one about one, or the other way round"
    return ""


def _factor(a: Reader, b: Reader, name: str) -> str:
    """A's numbers times one factor."""
    import numpy as np

    spec = a.specs[name]
    if spec.dtype not in HALF_STEPS:
        return ""
    place = probes(spec)[0]
    x, y = numbers(a, place), numbers(b, place)
    largest = int(np.abs(x).argmax())
    if not x[largest] or not y[largest]:
        return ""
    used = np.abs(x) > np.abs(x[largest]) / 4
    factor = float(np.median(y[used] / x[used]))
    power = 2.0 ** round(float(np.log2(abs(factor)))) * (1 if factor > 0 else -1)
    factor = power if abs(factor / power - 1) < 2 * HALF_STEPS[spec.dtype] else factor
    if not factor or abs(factor - 1) < 0.01:
        return ""
    step = 3 * HALF_STEPS[spec.dtype]
    for box in windows(spec):
        x, y = numbers(a, box), numbers(b, box)
        if (np.abs(y - factor * x) > step * np.abs(y) + 1e-38).any():
            return ""
    how = "exactly" if factor == power else "to within rounding"
    return f"A's numbers times {factor:.6g}, {how}"


def _rounded(a: Reader, b: Reader, name: str) -> str:
    """A's numbers, rounded to another dtype on the way and widened again."""
    dtype = a.specs[name].dtype
    for through in THROUGH.get(dtype, ()):
        if _equal(Cast(Cast(only(a, [name]), through), dtype), b, name):
            return f"A's numbers, rounded to {through} on the way"
    return ""


def _cast(a: Reader, b: Reader, name: str) -> str:
    """A's numbers, rounded to the dtype that B has."""
    dtype = b.specs[name].dtype
    if dtype not in HALF_STEPS or a.specs[name].dtype not in HALF_STEPS:
        return ""
    if _equal(Cast(only(a, [name]), dtype), b, name):
        return f"A's numbers, rounded to {dtype}"
    if _equal(a, Cast(only(b, [name]), a.specs[name].dtype), name):
        return f"A's are B's numbers, rounded to {a.specs[name].dtype}"
    return ""


def _equal(made: Reader, b: Reader, name: str) -> bool:
    """Whether they are, where A's numbers have a place in the dtype at all."""
    try:
        return likeness(made, b, probes(b.specs[name])).equal and same(made, b, [name])
    except MismatchError:
        return False
