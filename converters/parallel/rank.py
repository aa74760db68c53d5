"""Which rank of a job: its coordinates in Megatron's parallel groups."""

from __future__ import annotations

from math import lcm
from typing import NamedTuple

from ..errors import MismatchError
from ..tensors.sharding import Split, Topology


class Rank(NamedTuple):
    """Coordinates of a rank, each from 0 on.

    Attributes:
        tp, pp, ep: tensor, pipeline and expert parallel rank.
        etp: expert tensor parallel rank.
        vp: the virtual pipeline stage, which is the number of the model chunk: a rank has `vpp` of them.
        dp: which of several ranks that hold the same of the model, by data and context parallelism.
    """

    tp: int = 0
    pp: int = 0
    ep: int = 0
    etp: int = 0
    vp: int = 0
    dp: int = 0


def rank_at(number: int, world: int, topology: Topology, vp: int = 0) -> Rank:
    """The coordinates of a global rank in Megatron's default order: tp, cp, ep, dp, pp, the first one fastest.

    Args:
        number: of the rank, as torch.distributed counts.
        world: how many there are.
        topology: the parallel sizes.
        vp: which of the rank's model chunks.

    Raises:
        MismatchError: the world does not divide, or has no such rank.
    """
    period = lcm(topology.tp, topology.etp * topology.ep)
    if world % (topology.pp * period):
        raise MismatchError(
            f"{world} ranks do not divide by pipeline size {topology.pp} times {period}, the smallest common multiple "
            f"of TP {topology.tp} and ETP {topology.etp} x EP {topology.ep}",
            "Give the topology that the job runs with.",
        )
    if not 0 <= number < world:
        raise MismatchError(f"there is no rank {number} of {world}", "Give one from 0 on.")
    pp, inside = divmod(number, world // topology.pp)
    return checked(
        Rank(
            tp=inside % topology.tp,
            pp=pp,
            ep=inside // topology.etp % topology.ep,
            etp=inside % topology.etp,
            vp=vp,
            dp=inside // period,
        ),
        topology,
    )


def checked(rank: Rank, topology: Topology) -> Rank:
    """The rank, which the topology has.

    Raises:
        MismatchError: a coordinate is none of its parallel size.
    """
    sizes = {"tp": topology.tp, "pp": topology.pp, "ep": topology.ep, "etp": topology.etp, "vp": topology.vpp}
    for name, size in sizes.items():
        found = getattr(rank, name)
        if not 0 <= found < size:
            raise MismatchError(f"{name} rank {found} is none of {size}", f"Give one from 0 to {size - 1}.")
    return rank


def is_first(rank: Rank, topology: Topology, split: Split) -> bool:
    """Whether a rank is the first, in global order, of those that hold the same part of a tensor that is cut so."""
    dense = rank.tp if split.axis is not None else 0
    first = rank.etp + topology.etp * rank.ep if split.expert else dense
    same = (first % topology.tp, first % topology.etp, first // topology.etp % topology.ep)
    return rank.dp == 0 and (rank.tp, rank.etp, rank.ep) == same
