"""Two runs of elements: in which blocks they differ, and where in the run."""

from __future__ import annotations

import numpy as np
import pytest

from vlconv.converters.verification.comparison import elements
from vlconv.converters.verification.comparison.elements import BLOCK, Unlike, unlike

BFLOAT16 = ("bfloat16", "bfloat16")


def ones(count: int) -> np.ndarray:
    return np.full(count, 0x3F80, np.uint16)


def test_none() -> None:
    assert list(unlike(ones(0), ones(0), BFLOAT16)) == []
    assert list(unlike(ones(3 * BLOCK + 5), ones(3 * BLOCK + 5), BFLOAT16)) == []


@pytest.mark.parametrize("at", [0, 1, BLOCK - 1, BLOCK, 2 * BLOCK - 1, 2 * BLOCK, 2 * BLOCK + 4])
def test_one_anywhere(at: int) -> None:
    other = ones(2 * BLOCK + 5)
    other[at] = 0x4040  # 3.0
    assert list(unlike(ones(len(other)), other, BFLOAT16)) == [Unlike(1, at, 2.0)]


@pytest.mark.parametrize("at", [0, 1, 2 * BLOCK, 4 * BLOCK + 8, 4 * BLOCK + 9])
def test_one_bit_of_any_byte(at: int) -> None:
    other = ones(2 * BLOCK + 5)
    other.view(np.uint8)[at] ^= 1  # of the lower byte a step of 2^-7, of the upper one a factor of 1/4
    assert list(unlike(ones(len(other)), other, BFLOAT16)) == [Unlike(1, at // 2, 0.75 if at % 2 else 2**-7)]


def test_equality_is_of_bits() -> None:
    bits = np.array([0x0000, 0x7FC0, 0x7FC0], np.uint16)  # +0, NaN, NaN
    assert list(unlike(bits, bits.copy(), BFLOAT16)) == []
    other = np.array([0x8000, 0x7FC0, 0x7FC1], np.uint16)  # -0, the same NaN, another one
    assert list(unlike(bits, other, BFLOAT16)) == [Unlike(2, 0, 0.0, 1)]


def test_other_dtypes_are_not_held_bit_by_bit() -> None:
    bits = ones(4)  # 1 as bfloat16, 1.875 as float16
    assert list(unlike(bits, bits.copy(), ("bfloat16", "float16"))) == [Unlike(4, 0, 0.875)]


def test_runs_not_in_one_piece() -> None:
    apart = ones(2 * BLOCK)[::2]
    assert list(unlike(apart, ones(BLOCK), BFLOAT16)) == []
    apart[BLOCK - 1] = 0x4000  # 2.0
    assert list(unlike(apart, ones(BLOCK), BFLOAT16)) == [Unlike(1, BLOCK - 1, 1.0)]
    assert list(unlike(ones(BLOCK), apart, BFLOAT16)) == [Unlike(1, BLOCK - 1, 1.0)]


def test_each_block_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "BLOCK", 4)
    other = ones(14)
    other[[1, 2]], other[9], other[12] = 0x4000, 0xBF80, 0x7FC0  # 2, -1, NaN
    assert list(unlike(ones(14), other, BFLOAT16)) == [Unlike(2, 1, 1.0), Unlike(1, 9, 2.0), Unlike(1, 12, None, 1)]


def test_each_block_by_itself_when_they_are_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elements, "BLOCK", 4)
    other = np.ones(6, np.float32)
    other[5] = 1.25
    assert list(unlike(ones(6), other.view(np.uint32), ("bfloat16", "float32"))) == [Unlike(1, 5, 0.25)]
