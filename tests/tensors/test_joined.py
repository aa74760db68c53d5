"""Two tables, one behind the other; copies at equal steps."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from properties import holds

from vlconv.converters.tensors.joined import joined
from vlconv.converters.tensors.rules import Copy, Rows, interleave, transposed
from vlconv.converters.tensors.spec import Box
from vlconv.converters.tensors.strided import Run, runs


def box(name: str, *axes: tuple[int, int]) -> Box:
    return Box(name, tuple(o for o, _ in axes), tuple(n for _, n in axes))


class TestJoined:
    def test_boxes_are_cut_where_either_table_cuts(self) -> None:
        first = [Copy(box("a", (0, 4)), box("m", (2, 4))), Copy(box("a", (4, 2)), box("m", (0, 2)))]
        second = [Copy(box("m", (0, 3)), box("x", (5, 3))), Copy(box("m", (3, 3)), box("y", (0, 3)))]
        assert sorted(joined(first, second)) == [
            Copy(box("a", (0, 1)), box("x", (7, 1))),
            Copy(box("a", (1, 3)), box("y", (0, 3))),
            Copy(box("a", (4, 2)), box("x", (5, 2))),
        ]

    def test_two_transposes_are_none(self) -> None:
        first, second = list(transposed("a", "m", (2, 3, 5))), list(transposed("m", "z", (2, 5, 3)))
        assert joined(first, second) == [Copy(box("a", (0, 2), (0, 3), (0, 5)), box("z", (0, 2), (0, 3), (0, 5)))]

    def test_one_expert_of_a_transposed_tensor(self) -> None:
        first = list(transposed("a", "m", (2, 3, 5)))
        second = [Copy(box("m", (1, 1), (0, 5), (2, 1)), box("z", (0, 1), (0, 5)), True)]
        assert joined(first, second) == [Copy(box("a", (1, 1), (2, 1), (0, 5)), box("z", (0, 1), (0, 5)))]


def spread(run: Run) -> list[Copy]:
    """A run, copy by copy."""
    found = []
    for n in range(run.times):
        left, right = (
            b._replace(offsets=(b.offsets[0] + n * step, *b.offsets[1:]))
            for b, step in ((run.copy.left, run.left_step), (run.copy.right, run.right_step))
        )
        found.append(Copy(left, right, run.copy.transpose))
    return found


class TestRuns:
    def test_query_groups(self) -> None:
        copies = list(interleave("qkv", groups=4, tail=(8,), parts=[Rows("q", 6), Rows("k", 3)]))
        q = [copy for copy in copies if copy.right.name == "q"]
        assert list(runs(q)) == [Run(Copy(box("qkv", (0, 6), (0, 8)), box("q", (0, 6), (0, 8))), 4, 9, 6)]

    def test_heads_and_their_gates(self) -> None:
        parts = [Rows("q", 2, start=4 * j, step=8) for j in range(2)]
        parts += [Rows("q", 2, start=4 * j + 2, step=8) for j in range(2)]
        copies = list(interleave("qkv", groups=3, tail=(), parts=parts))
        found = list(runs(copies))
        assert len(found) == 4 and {run.times for run in found} == {3}
        assert sorted(c for run in found for c in spread(run)) == sorted(copies)

    def test_what_goes_backwards_is_no_run(self) -> None:
        copies = [Copy(box("a", (n, 1)), box("b", (3 - n, 1))) for n in range(4)]
        assert list(runs(copies)) == [Run(copy) for copy in copies]


PLACES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(1, 2)), min_size=1, max_size=8)


@holds(places=PLACES)
def test_runs_are_the_copies(places: list[tuple[int, int, int]]) -> None:
    copies = [Copy(box("a", (3 * a, n), (1, 2)), box("b", (3 * b, n), (0, 2))) for a, b, n in places]
    assert sorted(c for run in runs(copies) for c in spread(run)) == sorted(copies)
    assert np.sum([run.times for run in runs(copies)]) == len(copies)
