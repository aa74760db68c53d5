"""Rank directories whose names or args speak of more ranks than there can be: refused before they are enumerated."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.legacy.ranks import explain, rank_files

MANY = 65_535


@pytest.mark.parametrize(
    ("found", "args"),
    [
        ([(0,)], {"tensor_model_parallel_size": MANY}),
        ([(0,)], {"pipeline_model_parallel_size": MANY, "expert_model_parallel_size": MANY}),
        ([(0, 0, 0), (99_999, 99_999, 99_999)], {}),
        ([(0,), (10**200,)], {}),
    ],
)
def test_more_ranks_than_there_can_be(tmp_path: Path, found: list[tuple[int, ...]], args: dict[str, Any]) -> None:
    begin = time.process_time()
    with pytest.raises(CorruptError, match="rank directories, where TP is"):
        explain(tmp_path, found, args, second_is_ep=True)
    assert time.process_time() - begin < 1


@pytest.mark.parametrize(
    "args", [{"tensor_model_parallel_size": size} for size in (0, -1, 2.0, True, "2", [2], 2**400)]
)
def test_sizes_that_are_none_say_nothing(tmp_path: Path, args: dict[str, Any]) -> None:
    assert explain(tmp_path, [(0,), (1,)], args, second_is_ep=False).tp == 2


def test_digits_of_another_script_are_no_number(tmp_path: Path) -> None:
    (tmp_path / "mp_rank_0²").mkdir()
    with pytest.raises(CorruptError, match="not a rank directory's name"):
        rank_files(tmp_path)
