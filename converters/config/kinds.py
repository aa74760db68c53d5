"""Of which kind each fact is: what strangers state under its name may be anything that JSON, YAML or a pickle holds."""

from __future__ import annotations

from math import isfinite
from typing import TypeGuard

from ..models.shared.fields import LARGEST

NUMBERS = ("rope_theta", "rms_norm_eps")
PARTS = ("partial_rotary",)
LISTS = ("mrope_section", "dense_layers", "linear_layers", "vision.deepstack", "vision.fullatt_block_indexes")
FLAGS = ("tied", "gated_attention", "zero_centred_norms")
"""Names of facts (facts.py) by kind; all others are integers."""

AN_INTEGER, A_LIST = f"an integer from 0 to {LARGEST}", f"a list of integers from 0 to {LARGEST}"


def wanted(name: str) -> str:
    """What a fact must be, in words."""
    if name in NUMBERS:
        return "a number above 0"
    if name in PARTS:
        return "a number above 0 and at most 1"
    return A_LIST if name in LISTS else "true or false" if name in FLAGS else AN_INTEGER


def possible(name: str, value: object) -> bool:
    """Whether a fact can have a value."""
    if name in FLAGS:
        return isinstance(value, bool)
    if name in NUMBERS:
        return is_number(value) and value > 0
    if name in PARTS:
        return is_number(value) and 0 < value <= 1
    if name in LISTS:
        return isinstance(value, list) and all(map(_is_size, value))
    return _is_size(value)


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value is a number, none of the infinite ones."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def settled(name: str, value: object) -> object:
    """A value in the one form that comparisons and config.json want: 64.0 as 64, where integers are meant."""
    if name not in (*NUMBERS, *PARTS) and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_size(value: object) -> bool:
    return type(value) is int and 0 <= value <= LARGEST
