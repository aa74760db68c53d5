"""Rows in other places, in words that hold of each of them."""

from __future__ import annotations

import torch
from memory import Memory
from torch import Tensor

from vlconv.converters.verification.diagnosis.elsewhere import Others, another, moved_rows, rows


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).bfloat16()


A = noise(64, 16)


def said(b: Tensor, a: Tensor = A) -> str:
    return moved_rows(rows(Memory({"x": a}), Memory({"x": b}), "x"))


def with_rows(places: list[int], sources: list[int]) -> Tensor:
    b = A.clone()
    b[places] = A[sources]
    return b


def test_a_run_of_rows_that_is_there_twice() -> None:
    b = with_rows([*range(40, 48)], [*range(8, 16)])
    assert said(b) == "rows 40 to 47 are A's rows from 8 on, which are there twice then"


def test_rows_from_here_and_there_are_not_called_a_run() -> None:
    for places, sources in (([40, 50], [3, 4]), ([40, 41], [3, 9]), ([40, 41], [9, 8])):
        assert said(with_rows(places, sources)) == (
            "2 rows, 40 the first, are others of A's, some of which are there twice then"
        )


def test_all_in_another_order_and_within_what_they_stay() -> None:
    assert said(A.flip(0)) == "all rows are there, in another order: 64 of 64 have moved"
    parts = torch.cat([part.flip(0) for part in A.chunk(4)])
    assert said(parts) == "all rows are there, in another order: 64 of 64 have moved, each within its own 16 rows"


def test_other_numbers_are_not_called_moved() -> None:
    b = with_rows([5, 6], [6, 5])
    b[9, 15] += 1
    assert said(b) == "" and said(A) == ""
    assert said(A.view(64, 4, 4).transpose(1, 2).reshape(64, 16).contiguous()) == ""  # the same numbers in each row


def test_of_many_tensors_each_is_read_once_to_be_found() -> None:
    class Counting(Memory):
        reads = 0

        def read_into(self, box: object, out: object) -> None:
            self.reads += 1
            super().read_into(box, out)  # type: ignore[arg-type]

    count = 50
    a = Counting({f"x{i}": noise(8, 8, seed=i) for i in range(count)})
    b = Memory({f"x{i}": noise(8, 8, seed=1000 + i) for i in range(count)})
    others = Others(a)
    assert [another(others, b, name) for name in b.specs] == [""] * count and a.reads == count
    late = Memory({f"x{i}": noise(8, 8, seed=max(0, i - 1)) for i in range(count)})
    assert [another(others, late, name) for name in late.specs][1:] == [f"A's x{i}" for i in range(count - 1)]
    assert a.reads == 2 * count - 1


def test_what_is_equal_in_the_last_numbers_alone_is_another() -> None:
    large = noise(64, 512)
    other = large.clone()
    other[0, 0] += 1
    assert another(Others(Memory({"x": noise(64, 512, seed=2), "y": large})), Memory({"x": other}), "x") == ""
    assert another(Others(Memory({"x": noise(64, 512, seed=2), "y": large})), Memory({"x": large}), "x") == "A's y"
