"""The order of B's rows, by what chunks show: where they show nothing, nothing is assumed."""

from __future__ import annotations

import pytest

from vlconv.converters import UnsupportedError
from vlconv.converters.adapters.chunk_order import Run, Shown, in_halves, in_sections
from vlconv.converters.tensors.sharding import GATED, Split

GATE_AND_UP = Split(0, GATED)


@pytest.mark.parametrize("chunks", [0, 2])
@pytest.mark.parametrize("ranks", [{0}, {0, 2}, {1, 2}, {3}])
def test_ranks_that_do_not_show(chunks: int, ranks: set[int]) -> None:
    """0: chunks of different lengths. That two tensors have such ones says nothing of how many ranks there were."""
    seen = Shown("B", 12, chunks, frozenset(ranks))
    with pytest.raises(UnsupportedError, match="and that does not show"):
        in_halves(seen)
    with pytest.raises(UnsupportedError, match="and that does not show"):
        in_sections(seen, GATE_AND_UP)


def test_halves_of_two_ranks() -> None:
    """The first half of every rank's rows, then the second half of every rank's."""
    seen = Shown("B", 8, 4, frozenset({2}))
    assert in_halves(seen) == [Run(0, 0, 2), Run(4, 2, 2), Run(2, 4, 2), Run(6, 6, 2)]
    assert in_halves(seen._replace(chunks=2)) == [Run(0, 0, 8)]
