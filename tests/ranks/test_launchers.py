"""Launchers other than torchrun: what they say in the environment is enough for processes to meet, but for where."""

from __future__ import annotations

from pathlib import Path

import pytest
from killing import tree
from processes import Says, document, run

LAUNCHERS: dict[str, tuple[str, Says]] = {
    "srun": (
        "SLURM_PROCID and SLURM_STEP_NUM_TASKS",
        lambda rank, size: {
            "SLURM_PROCID": rank,
            "SLURM_NTASKS": size,
            "SLURM_STEP_NUM_TASKS": size,
            "SLURM_STEP_NODELIST": "node[1-2]",
            "SLURM_LOCALID": 0,
        },
    ),
    "mpirun": (
        "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE",
        lambda rank, size: {
            "OMPI_COMM_WORLD_RANK": rank,
            "OMPI_COMM_WORLD_SIZE": size,
            "OMPI_COMM_WORLD_LOCAL_RANK": rank,
            "OMPI_COMM_WORLD_LOCAL_SIZE": size,
            "SLURM_PROCID": 0,  # of mpirun's daemon, which srun has started on each host
            "SLURM_STEP_NUM_TASKS": 1,
        },
    ),
    "mpiexec": (
        "PMI_RANK and PMI_SIZE",
        lambda rank, size: {"PMI_RANK": rank, "PMI_SIZE": size, "MPI_LOCALRANKID": rank, "MPI_LOCALNRANKS": size},
    ),
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_their_processes_meet(source: Path, tmp_path: Path, launcher: str) -> None:
    _, says = LAUNCHERS[launcher]
    ended = run(["mcore2hf", source, tmp_path / "out", "--json"], 3, says=says)
    (alone,) = run(["mcore2hf", source, tmp_path / "alone"], 1)
    assert [one.code for one in (*ended, alone)] == [0, 0, 0, 0], ended
    assert document(ended[0].said)["ranks"] == 3 and [one.said for one in ended[1:]] == ["", ""]
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_where_they_meet_must_be_said(source: Path, tmp_path: Path, launcher: str) -> None:
    """Else each would write the whole output, over that of the others."""
    names, says = LAUNCHERS[launcher]
    ended = run(["mcore2hf", source, tmp_path / "out"], 2, says=says, MASTER_ADDR="", MASTER_PORT="")
    assert [one.code for one in ended] == [1, 1] and ended[1].said == ""
    what = (
        f"{names} say that this is process 0 of 2, but MASTER_ADDR and MASTER_PORT, where all are to meet, are not set"
    )
    assert ended[0].said.startswith(
        f"error: {what}\n  Set MASTER_ADDR to the host of process 0 and MASTER_PORT to a free"
    )
    assert "set WORLD_SIZE=1 to run alone." in ended[0].said
    assert not [*tmp_path.iterdir()]


def test_half_of_where_they_meet(source: Path, tmp_path: Path) -> None:
    ended = run(["mcore2hf", source, tmp_path / "out"], 2, MASTER_PORT="")
    assert [one.code for one in ended] == [1, 1]
    assert "process 0 of 2, but MASTER_PORT, where all are to meet, is not set\n" in ended[0].said


def test_one_of_them_may_be_alone(source: Path, tmp_path: Path) -> None:
    """As a script of a job that calls the command once."""
    _, says = LAUNCHERS["srun"]
    (ended,) = run(["mcore2hf", source, tmp_path / "out"], 2, says=says, absent=(1,), WORLD_SIZE=1, MASTER_ADDR="")
    assert ended.code == 0, ended
