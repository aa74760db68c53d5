"""Which process of a job this one is, as torchrun and other launchers say it in the environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..errors import RankError, shown

NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Place(NamedTuple):
    """A process of a job.

    Attributes:
        rank: its number; 0 leads.
        size: how many there are.
        local_rank: its number among those of its host.
        neighbours: how many are on its host, itself included; 1 where nobody says it.
        master: the host at which the processes meet.
        port: where they meet there.
        hosted: somebody else, torchrun, waits for them there; else rank 0 does.
    """

    rank: int
    size: int
    local_rank: int
    neighbours: int
    master: str
    port: int
    hosted: bool = False


def place_of(environ: Mapping[str, str]) -> Place | None:
    """This process' place in a job; None where the environment speaks of no other process.

    Raises:
        RankError: what it says makes no sense.
    """
    if not all(environ.get(name) for name in NEEDED) or (size := _number(environ, "WORLD_SIZE")) <= 1:
        return None
    rank = _number(environ, "RANK")
    if not 0 <= rank < size:
        raise RankError(f"RANK is {rank} and WORLD_SIZE {size}", "Ranks count from 0 to WORLD_SIZE - 1.")
    return Place(
        rank,
        size,
        _number(environ, "LOCAL_RANK", rank),
        max(1, _number(environ, "LOCAL_WORLD_SIZE", 1)),
        environ["MASTER_ADDR"],
        _number(environ, "MASTER_PORT"),
        environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
    )


def _number(environ: Mapping[str, str], name: str, default: int = 0) -> int:
    text = environ.get(name)
    if not text:
        return default
    try:
        return int(text)
    except ValueError:
        raise RankError(
            f'{name} is "{shown(text)}" in the environment, which is no number',
            f"Start it with torchrun, or set {', '.join(NEEDED)} for every process; unset WORLD_SIZE to run alone.",
        ) from None
