"""Global ranks in Megatron's groups. Against megatron-core itself: tests/live/test_ranks.py."""

from __future__ import annotations

from itertools import product

import pytest

from vlconv.converters.errors import MismatchError
from vlconv.converters.parallel.rank import Rank, checked, is_first, rank_at
from vlconv.converters.tensors.sharding import GATED, REPLICATED, Split, Topology


def test_by_hand() -> None:
    """TP 2 fastest, then what is left of a stage; experts are dealt by ETP 1, then EP 2. 16 ranks, 8 to a stage."""
    topology = Topology(tp=2, pp=2, ep=4, etp=1)
    assert [rank_at(n, 16, topology)[:3] for n in (0, 1, 2, 7, 8)] == [
        (0, 0, 0), (1, 0, 1), (0, 0, 2), (1, 0, 3), (0, 1, 0),
    ]  # fmt: skip
    assert [rank_at(n, 16, topology).dp for n in (0, 3, 4, 7, 12)] == [0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("number", "world", "topology", "said"),
    [
        (0, 6, Topology(tp=4), "6 ranks do not divide"),
        (0, 4, Topology(tp=2, ep=4, etp=2), "4 ranks do not divide by pipeline size 1 times 8"),
        (4, 4, Topology(tp=2), "no rank 4 of 4"),
        (-1, 4, Topology(tp=2), "no rank -1 of 4"),
    ],
)
def test_refused(number: int, world: int, topology: Topology, said: str) -> None:
    with pytest.raises(MismatchError, match=said):
        rank_at(number, world, topology)


def test_coordinates_that_no_rank_has_together() -> None:
    """With ETP 2 and TP 2 the second tensor rank is the second expert tensor rank, never the first.

    A rank put together by hand that leaves etp out would else be given the first one's experts.
    """
    topology = Topology(tp=2, ep=2, etp=2)
    there = {rank_at(n, 4, topology)[:4] for n in range(4)}
    for tp, ep, etp in product(range(2), repeat=3):
        rank = Rank(tp=tp, ep=ep, etp=etp)
        if rank[:4] in there:
            assert checked(rank, topology) is rank
        else:
            with pytest.raises(MismatchError, match=f"no rank has tp {tp}, ep {ep} and etp {etp} at TP 2, EP 2, ETP 2"):
                checked(rank, topology)
    assert len(there) == 4


@pytest.mark.parametrize("split", [REPLICATED, Split(axis=0), Split(axis=0, sections=GATED, expert=True)])
@pytest.mark.parametrize(
    "topology", [Topology(tp=2), Topology(tp=4, ep=2, etp=1), Topology(tp=2, ep=3, etp=2), Topology(tp=1, ep=4)]
)
def test_each_part_has_one_first_rank(split: Split, topology: Topology) -> None:
    world = 2 * 24
    firsts = [r for n in range(world) if is_first(r := rank_at(n, world, topology), topology, split)]
    parts = topology.ep * topology.etp if split.expert else topology.tp if split.axis is not None else 1
    assert len(firsts) == parts
    assert len({(r.ep, r.etp) if split.expert else r.tp for r in firsts}) == parts
    assert Rank() in firsts
