"""Which rank of a job: its coordinates in Megatron's parallel groups."""

from __future__ import annotations

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
    period = topology.period
    if world % (topology.pp * period):
        raise MismatchError(
            f"{world} ranks do not divide by pipeline size {topology.pp} times {period}, the smallest common multiple "
            f"of TP {topology.tp} and ETP {topology.etp} x EP {topology.ep}",
            "Give the topology that the job runs with.",
        )
    if not 0 <= number < world:
        raise MismatchError(f"there is no rank {number} of {world}", "Give one from 0 on.")
    pp, inside = divmod(number, world // topology.pp)
    tp, etp, ep = topology.coordinates(inside)
    return checked(Rank(tp, pp, ep, etp, vp, dp=inside // period), topology)


def checked(rank: Rank, topology: Topology) -> Rank:
    """The rank, which the topology has.

    Raises:
        MismatchError: a coordinate is none of its parallel size, or no rank has all of them together.
    """
    sizes = {"tp": topology.tp, "pp": topology.pp, "ep": topology.ep, "etp": topology.etp, "vp": topology.vpp}
    for name, size in sizes.items():
        found = getattr(rank, name)
        if not 0 <= found < size:
            raise MismatchError(f"{name} rank {found} is none of {size}", f"Give one from 0 to {size - 1}.")
    if (rank.tp, rank.etp, rank.ep) not in map(topology.coordinates, range(topology.period)):
        raise MismatchError(
            f"no rank has tp {rank.tp}, ep {rank.ep} and etp {rank.etp} at TP {topology.tp}, EP {topology.ep}, "
            f"ETP {topology.etp}",
            "Experts are dealt to the ranks of a stage anew, etp first and then ep: rank_at gives all coordinates.",
        )
    return rank


def is_first(rank: Rank, topology: Topology, split: Split) -> bool:
    """Whether a rank is the first, in global order, of those that hold the same part of a tensor that is cut so."""
    dense = rank.tp if split.axis is not None else 0
    first = rank.etp + topology.etp * rank.ep if split.expert else dense
    return rank.dp == 0 and (rank.tp, rank.etp, rank.ep) == topology.coordinates(first)
