"""Which process of a job this one is, as launchers say it in the environment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import RankError, shown


class Names(NamedTuple):
    """Variables by which a launcher tells a process of a job its place.

    Attributes:
        rank: its number.
        size: how many processes there are.
        near: how many of them are on its host; "": that is not said.
    """

    rank: str
    size: str
    near: str


USUAL = Names("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
"""torchrun's, and for whoever sets them himself."""

LAUNCHERS = (
    USUAL,
    Names("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_SIZE"),  # mpirun of Open MPI
    Names("PMI_RANK", "PMI_SIZE", "MPI_LOCALNRANKS"),  # mpiexec of MPICH and its kin
    Names("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", ""),  # srun; SLURM_NTASKS are also told to a script that is alone
)
"""The first that says something counts: mpirun may have been started by srun, and torchrun by either."""

MASTER, PORT = MEETING = ("MASTER_ADDR", "MASTER_PORT")
"""Where processes meet: torchrun says it, other launchers do not."""

ALONE = f"set {USUAL.size}=1 to run alone"


class Place(NamedTuple):
    """A process of a job.

    Attributes:
        rank: its number; 0 leads.
        size: how many there are.
        neighbours: how many are on its host, itself included; 0 where nobody says it.
        master: the host at which the processes meet; "" where nobody says it.
        port: where they meet there; 0 where nobody says it.
        names: who says so.
        hosted: somebody else, torchrun, waits for them there; else rank 0 does.
        launched: a launcher has started this process, and not a script, which may have ended since.
        attempt: how often torchrun has started all anew; they meet at the same place each time.
    """

    rank: int
    size: int
    neighbours: int
    master: str
    port: int
    names: Names = USUAL
    hosted: bool = False
    launched: bool = False
    attempt: int = 0

    def near(self, hosts: Sequence[str]) -> int:
        """How many processes share its host, of all ranks' hosts."""
        return self.neighbours or hosts.count(hosts[self.rank])


def place_of(environ: Mapping[str, str]) -> Place | None:
    """This process' place in a job; None where the environment speaks of no other process.

    Raises:
        RankError: what it says makes no sense.
    """
    names = next((one for one in LAUNCHERS if environ.get(one.rank) and environ.get(one.size)), None)
    if names is None or _number(environ, USUAL.size) == 1 or (size := _number(environ, names.size)) <= 1:
        return None
    rank = _number(environ, names.rank)
    if not 0 <= rank < size:
        raise RankError(
            f"{names.rank} is {rank} and {names.size} {size}", f"Ranks count from 0 to {names.size} - 1; {ALONE}."
        )
    return Place(
        rank,
        size,
        max(0, _number(environ, names.near)),
        environ.get(MASTER, ""),
        _number(environ, PORT),
        names,
        environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True",
        names != USUAL or bool(environ.get("TORCHELASTIC_RUN_ID")),
        _number(environ, "TORCHELASTIC_RESTART_COUNT"),
    )


def _number(environ: Mapping[str, str], name: str) -> int:
    """0 where it is not there."""
    text = environ.get(name)
    if not text:
        return 0
    try:
        return int(text)
    except ValueError:
        raise RankError(
            f'{name} is "{shown(text)}" in the environment, which is no number',
            f"Start it with torchrun, or set {', '.join((*USUAL[:2], *MEETING))} for every process; {ALONE}.",
        ) from None
