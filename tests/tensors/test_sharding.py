"""Which boxes of a tensor a rank has, for axes that hold several sections; every number by hand."""

from __future__ import annotations

from typing import Any

import pytest

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.sharding import (
    GATED,
    Part,
    Split,
    Topology,
    local_shape,
    parts,
    sections_of,
    whole_shape,
)

# A Gated DeltaNet of 4 key heads and 8 value heads, two rows each: [q 8 | k 8 | v 16 | z 16 | b 8 | a 8].
IN_PROJ = Split(axis=0, sections=(8, 8, 16, 16, 8, 8))


def rows(split: Split, count: int, rank: int, ranks: int) -> list[tuple[int, int, int]]:
    """First row, number of rows, first row of the rank's own tensor."""
    return [(p.offsets[0], p.lengths[0], p.local) for p in parts((count, 5), split, rank, ranks)]


def test_one_rank_has_all() -> None:
    assert list(parts((64, 5), IN_PROJ, 0, 1)) == [Part((0, 0), (64, 5), 0)]


def test_two_ranks() -> None:
    assert rows(IN_PROJ, 64, 0, 2) == [(0, 4, 0), (8, 4, 4), (16, 8, 8), (32, 8, 16), (48, 4, 24), (56, 4, 28)]
    assert rows(IN_PROJ, 64, 1, 2) == [(4, 4, 0), (12, 4, 4), (24, 8, 8), (40, 8, 16), (52, 4, 24), (60, 4, 28)]


def test_four_ranks() -> None:
    assert rows(IN_PROJ, 64, 3, 4) == [(6, 2, 0), (14, 2, 2), (28, 4, 4), (44, 4, 8), (54, 2, 12), (62, 2, 14)]


def test_sections_say_how_sizes_compare() -> None:
    conv1d = Split(axis=0, sections=(1, 1, 2))
    assert rows(conv1d, 32, 1, 2) == [(4, 4, 0), (12, 4, 4), (24, 8, 8)]
    assert rows(Split(axis=0, sections=(300, 300, 600)), 32, 1, 2) == rows(conv1d, 32, 1, 2)


def test_gated() -> None:
    assert rows(Split(axis=0, sections=GATED), 12, 2, 3) == [(4, 2, 0), (10, 2, 2)]


def test_another_axis() -> None:
    assert list(parts((3, 12), Split(axis=1, sections=(1, 2)), 1, 2)) == [
        Part((0, 2), (3, 2), 0),
        Part((0, 8), (3, 4), 2),
    ]


def test_shapes() -> None:
    assert local_shape((64, 5), IN_PROJ, 4) == (16, 5)
    assert whole_shape((16, 5), IN_PROJ, 4) == (64, 5)


@pytest.mark.parametrize(
    ("split", "count", "ranks", "says"),
    [
        (IN_PROJ, 64, 3, "8 rows or columns of x [64, 5] do not divide by the tensor parallel size 3"),
        (IN_PROJ, 64, 16, "8 rows or columns of x [64, 5] do not divide by the tensor parallel size 16"),
        (IN_PROJ, 60, 2, "60 rows or columns of x [60, 5] do not come in sections of 8, 8, 16, 16, 8, 8"),
        (Split(axis=0, sections=(4, 0)), 8, 2, "8 rows or columns of x [8, 5] do not come in sections of 4, 0"),
        (Split(axis=0, sections=(0, 0)), 8, 2, "sections of 0, 0"),
        (Split(axis=0, sections=(5, -1)), 8, 2, "sections of 5, -1"),
        (Split(axis=0, sections=(2**200, 1)), 8, 2, "do not come in sections of"),
    ],
)
def test_what_does_not_divide(split: Split, count: int, ranks: int, says: str) -> None:
    with pytest.raises(MismatchError) as caught:
        list(parts((count, 5), split, 0, ranks, "x"))
    assert says in caught.value.what


def test_an_axis_without_sections_is_one() -> None:
    assert sections_of(7, (), "x") == (7,)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"tp": 0}, "tp 0"),
        ({"vpp": None}, "vpp None"),  # what Megatron's config says where there is one chunk
        ({"ep": 2.0}, r"ep 2\.0"),
        ({"pp": 2, "first": -1}, "first -1"),
        ({"pp": 2, "last": 0}, "last 0"),
    ],
)
def test_a_topology_of_no_sense(sizes: dict[str, Any], said: str) -> None:
    with pytest.raises(MismatchError, match=f"a topology has no {said}"):
        Topology(**sizes)
