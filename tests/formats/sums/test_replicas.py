"""Copies of a tensor that ranks keep in files of their own: equal, or how they differ."""

from __future__ import annotations

from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from vlconv.converters.formats.sums.replicas import difference
from vlconv.converters.formats.zips.read import ItemTensor

NUMBERS = np.arange(6, dtype="<f4")
CRC = crc32(NUMBERS.tobytes())


def copy(start: int = 0, strides: tuple[int, ...] | None = None, crc: int | None = CRC, offset: int = 0) -> ItemTensor:
    """Two rows of two numbers, somewhere in a storage of six."""
    return ItemTensor("float32", (2, 2), offset, NUMBERS.nbytes, crc, start, strides)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """A file with the storage twice, and behind it one that differs in a number."""
    other = NUMBERS.copy()
    other[3] = 5.5
    (tmp_path / "f").write_bytes(NUMBERS.tobytes() * 2 + other.tobytes())
    return str(tmp_path / "f")


class TestEqualStorages:
    """Their checksums are the same, and what of them is the tensor decides."""

    @pytest.mark.parametrize("view", [(0, None), (1, None), (0, (1, 2)), (2, (1, 2))], ids=str)
    def test_the_same_view_is_not_read(self, view: tuple[int, tuple[int, ...] | None]) -> None:
        assert difference("no file", copy(*view), "none either", copy(*view)) == ""

    def test_from_another_element_on(self, path: str) -> None:
        assert difference(path, copy(), path, copy(start=2, offset=24)) == "4 of 4 elements, by at most 2"

    def test_transposed(self, path: str) -> None:
        assert difference(path, copy(), path, copy(strides=(1, 2), offset=24)) == "2 of 4 elements, by at most 1"

    def test_with_gaps(self, path: str) -> None:
        assert difference(path, copy(), path, copy(strides=(3, 1), offset=24)) == "2 of 4 elements, by at most 1"

    def test_other_views_of_the_same_numbers(self, tmp_path: Path) -> None:
        ones = np.ones(6, "<f4")
        (tmp_path / "f").write_bytes(ones.tobytes())
        crc = crc32(ones.tobytes())
        assert difference(str(tmp_path / "f"), copy(crc=crc), str(tmp_path / "f"), copy(2, (1, 2), crc)) == ""


class TestOtherStorages:
    @pytest.mark.parametrize("crc", [CRC, None], ids=["summed", "not summed"])
    def test_a_number_differs(self, path: str, crc: int | None) -> None:
        assert difference(path, copy(crc=crc), path, copy(crc=crc and crc + 1, offset=48)) == (
            "1 of 4 elements, by at most 2.5"
        )

    def test_equal_without_checksums(self, path: str) -> None:
        assert difference(path, copy(crc=None), path, copy(crc=None, offset=24)) == ""

    def test_another_shape_or_dtype(self) -> None:
        assert difference("f", copy(), "g", copy()._replace(shape=(4,))) == "float32 [2, 2] and float32 [4]"
        assert difference("f", copy(), "g", copy()._replace(dtype="int32")) == "float32 [2, 2] and int32 [2, 2]"
