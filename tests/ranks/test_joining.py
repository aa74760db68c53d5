"""How processes of a job come together, and what is said where they do not."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import Ended, Job, run

from vlconv import converters
from vlconv.converters import RankError
from vlconv.converters.output.writing import shares
from vlconv.converters.ranks import joining, others, serving
from vlconv.converters.ranks.launcher import Launcher
from vlconv.converters.ranks.lead import led
from vlconv.converters.ranks.place import Place, place_of
from vlconv.converters.ranks.team import Share

SAMPLED = 2

HOST = socket.gethostname()
MEETING = {"MASTER_ADDR": "a.b", "MASTER_PORT": "29500"}


OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "5", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}
SRUN = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NODELIST": "n[1-2]"}
DAEMON = {"SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
"""What mpirun's processes also see where it has had srun start a daemon on each of two hosts."""
BATCH = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_NODELIST": "n[1-2]"}
"""What sbatch tells the script, which is alone."""


class TestThePlace:
    def test_of_torchrun(self) -> None:
        said = {"RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
        assert place_of(MEETING | said) == Place(5, 8, 4, "a.b", 29500)
        agent = {"TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "2"}
        found = place_of(MEETING | said | agent | {"TORCHELASTIC_USE_AGENT_STORE": "True"})
        assert found == Place(5, 8, 4, "a.b", 29500, hosted=True, launched=True, attempt=2)
        assert place_of(OPEN_MPI | SRUN | MEETING | said | agent) == found._replace(hosted=False)

    @pytest.mark.parametrize(
        ("said", "near"),
        [
            ({"RANK": "5", "WORLD_SIZE": "8"}, 0),
            (OPEN_MPI, 4),
            (OPEN_MPI | DAEMON, 4),
            ({"PMI_RANK": "5", "PMI_SIZE": "8", "MPI_LOCALNRANKS": "4"}, 4),
            ({"PMI_RANK": "5", "PMI_SIZE": "8"} | DAEMON, 0),
            (SRUN, 0),
            (SRUN | {"WORLD_SIZE": "8"}, 0),
        ],
        ids=str,
    )
    def test_of_others(self, said: dict[str, str], near: int) -> None:
        found = place_of(MEETING | said)
        assert found and found[:5] == (5, 8, near, "a.b", 29500) and not found.hosted
        assert found.launched == ("RANK" not in said)  # else it may have been a script

    def test_who_is_near(self) -> None:
        """By their hosts, where the launcher does not say it: its word holds where containers have one name."""
        hosts = ["a", "a", "b", "a", "b"]
        assert [Place(rank, 5, 0, "a.b", 29500).near(hosts) for rank in range(5)] == [3, 3, 2, 3, 2]
        assert Place(2, 5, 1, "a.b", 29500).near(["same"] * 5) == 1

    @pytest.mark.parametrize(
        "said",
        [
            {},
            {"RANK": "0", "WORLD_SIZE": "1"},
            {"RANK": "0"},
            {"WORLD_SIZE": "8"},
            BATCH,
            BATCH | {"WORLD_SIZE": "8"},
            SRUN | {"WORLD_SIZE": "1"},
            OPEN_MPI | {"WORLD_SIZE": "1"},
            OPEN_MPI | {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"} | SRUN,
        ],
        ids=str,
    )
    def test_of_none(self, said: dict[str, str]) -> None:
        assert place_of(MEETING | said) is None

    @pytest.mark.parametrize(
        ("said", "what"),
        [
            ({"RANK": "8", "WORLD_SIZE": "8"}, "RANK is 8 and WORLD_SIZE 8"),
            ({"RANK": "-1", "WORLD_SIZE": "8"}, "RANK is -1 and WORLD_SIZE 8"),
            ({"RANK": "a\n", "WORLD_SIZE": "8"}, r'RANK is "a\n" in the environment, which is no number'),
            ({"RANK": "1", "WORLD_SIZE": "many"}, 'WORLD_SIZE is "many" in the environment, which is no number'),
            (SRUN | {"SLURM_PROCID": "8"}, "SLURM_PROCID is 8 and SLURM_STEP_NUM_TASKS 8"),
        ],
        ids=str,
    )
    def test_of_no_sense(self, said: dict[str, str], what: str) -> None:
        with pytest.raises(RankError) as caught:
            place_of(MEETING | said)
        assert caught.value.what == what and "set WORLD_SIZE=1 to run alone" in caught.value.hint


def test_of_whom_a_launcher_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sets RANK may be a script that starts processes and ends."""
    started = [Launcher(Place(0, 2, 0, "a.b", 29500, launched=launched)) for launched in (True, False)]
    assert [one.gone() for one in started] == [None, None]
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert [bool(one.gone()) for one in started] == [True, False]


@pytest.mark.parametrize(("total", "size"), [(100, 3), (2, 4), (0, 2), (7, 7)])
def test_shares_are_all_there_once(total: int, size: int) -> None:
    spans = [Share(rank, size).span(total) for rank in range(size)]
    assert [at for span in spans for at in span] == list(range(total))
    assert max(map(len, spans)) - min(map(len, spans)) <= 1


ALONE = """
import os, sys
from vlconv import converters
from vlconv.__main__ import main
source, first, second = sys.argv[1:]
os.environ |= {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}
report = converters.mcore2hf(source, first)
assert report.status == "done" and "ranks" not in report.told, report
os.environ["WORLD_SIZE"] = "1"
sys.argv[1:] = ["mcore2hf", source, second, "--quiet"]
try:
    main()
finally:
    print(sorted(name for name in sys.modules if name.split(".")[0] == "torch"))
"""


def test_alone_nothing_of_torch_is_imported(source: Path, tmp_path: Path) -> None:
    """From Python in the midst of a training job; and on the command line of a job of one process."""
    command = [sys.executable, "-c", ALONE, source, tmp_path / "first", tmp_path / "second"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


def test_no_call_from_python_asks_for_others(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (MEETING | {"RANK": "0", "WORLD_SIZE": "2"}).items():
        monkeypatch.setenv(name, value)
    assert led.get() is None and converters.verify(source).status == "same"


class TestWhatOneSaysForAll:
    def test_help(self) -> None:
        ended = run(["mcore2hf", "--help"], 2)
        assert [one.code for one in ended] == [0, 0]
        assert "--reference" in ended[0].said and ended[1].said == ""

    def test_a_wrong_command_line(self) -> None:
        ended = run(["mcore2hf", "--nothing"], 2)
        assert [one.code for one in ended] == [2, 2]
        assert "--nothing" in ended[0].said and ended[1].said == ""

    def test_a_refusal(self, tmp_path: Path) -> None:
        ended = run(["mcore2hf", tmp_path / "nothing", tmp_path / "out"], 2)
        assert [one.code for one in ended] == [1, 1]
        assert ended[0].said.count("error: ") == 1 and ended[1].said == ""

    def test_a_dry_run(self, source: Path, tmp_path: Path) -> None:
        ended = run(["mcore2hf", source, tmp_path / "out", "--dry-run", "--json"], 2)
        assert [one.code for one in ended] == [0, 0] and ended[1].said == ""
        assert json.loads(ended[0].said)["ranks"] == 2 and not [*tmp_path.iterdir()]


class TestWhoDoesNotCome:
    @pytest.fixture(autouse=True)
    def at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(joining, "WAIT", 2.0)

    def test_is_named(self, source: Path, tmp_path: Path) -> None:
        ended = run(["mcore2hf", source, tmp_path / "out"], 4, absent=(1, 3))
        assert [one.code for one in ended] == [1, 1] and ended[1].said == ""
        what = "waited 2 seconds for 4 processes: RANK 1, 3 did not come"
        assert ended[0].said.startswith(f"error: {what}\n  Start as many processes as WORLD_SIZE says (4),")
        assert "set WORLD_SIZE=1 to run alone" in ended[0].said
        assert not [*tmp_path.iterdir()]

    def test_the_first_process(self, source: Path, tmp_path: Path) -> None:
        job = Job(["mcore2hf", source, tmp_path / "out"], 2, absent=(0,))
        (ended,) = job.ended()
        where = f"MASTER_ADDR 127.0.0.1, MASTER_PORT {job.port}"
        assert ended.code == 1
        assert f"error: rank 1 on {HOST}: waited 2 seconds for rank 0 at {where}\n" in ended.said

    def test_a_signal_ends_the_waiting(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(joining, "WAIT", 60.0)
        job = Job(["mcore2hf", source, tmp_path / "out"], 2, absent=(1,))
        time.sleep(0.5)
        job.kill(0, signal.SIGTERM)
        (ended,) = job.ended()
        assert (ended.code, ended.said) == (143, "interrupted: SIGTERM ended it\n  Nothing was left behind.\n")

    def test_another_version(self, source: Path, tmp_path: Path) -> None:
        def prepare(rank: int) -> None:
            joining.__version__ = ("1.0", "1.1")[rank]

        ended = run(["mcore2hf", source, tmp_path / "out"], 2, prepare)
        assert [one.code for one in ended] == [1, 1] and ended[1].said == ""
        assert f"error: rank 1 on {HOST} is vlconv 1.1, and rank 0 is 1.0\n" in ended[0].said

    def test_a_port_that_is_taken(self, source: Path, tmp_path: Path) -> None:
        with socket.socket() as taken:
            taken.bind(("", 0))
            taken.listen()
            port = taken.getsockname()[1]
            (ended,) = run(["mcore2hf", source, tmp_path / "out"], 2, absent=(1,), MASTER_PORT=port)
        assert (
            ended.code == 1
            and f"the others cannot be waited for at MASTER_ADDR 127.0.0.1, MASTER_PORT {port}: " in (ended.said)
        )


class TestSilence:
    """A host that is gone closes no connection: here a process that stands still."""

    @pytest.fixture(autouse=True)
    def short(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(others, "SILENCE", 1.5)
        monkeypatch.setattr(serving, "SILENCE", 1.5)
        monkeypatch.setattr(others, "BEAT", 0.2)
        monkeypatch.setattr(others, "FAREWELL", 0.5)

    def job(self, source: Path, target: Path, still: int) -> list[Ended]:
        """A conversion in which one of two processes stands still, until the other one is over."""

        def prepare(rank: int) -> None:
            def stands(task: object) -> None:
                if rank == still:
                    os.kill(os.getpid(), signal.SIGSTOP)
                time.sleep(4)

            shares.Fill._look = stands  # type: ignore[assignment,method-assign]

        job = Job(["mcore2hf", source, target], 2, prepare)
        os.waitid(os.P_PID, job.pids[1 - still], os.WEXITED | os.WNOWAIT)
        job.kill(still)
        return job.ended()

    def test_of_another_process(self, source: Path, tmp_path: Path) -> None:
        ended = self.job(source, tmp_path / "out", 1)
        assert [one.code for one in ended] == [1, -9]
        assert f"error: nothing is heard of rank 1 on {HOST} for 2 seconds\n" in ended[0].said
        assert not [*tmp_path.iterdir()]

    def test_of_the_first(self, source: Path, tmp_path: Path) -> None:
        ended = self.job(source, tmp_path / "out", 0)
        assert [one.code for one in ended] == [-9, 1]
        assert ended[1].said == f"error: rank 1: rank 0 on {HOST} is not heard of for 2 seconds, and all stop\n"

    def test_of_nobody(self, source: Path, tmp_path: Path) -> None:
        """Who is at work says so."""

        def prepare(rank: int) -> None:
            shares.Fill._look = lambda task: time.sleep(3)  # type: ignore[assignment,method-assign]

        ended = run(["mcore2hf", source, tmp_path / "out"], 2, prepare)
        assert [one.code for one in ended] == [0, 0], ended


class TestDirectories:
    def test_paths_mean_what_they_mean_to_the_first(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        ended = run(["mcore2hf", os.path.relpath(source), "out"], 2, lambda rank: os.chdir("/") if rank else None)
        assert [one.code for one in ended] == [0, 0], ended
        assert (tmp_path / "out" / "model.safetensors").is_file()

    def test_one_that_is_not_there(self, source: Path, tmp_path: Path) -> None:
        def missing(path: str) -> None:
            raise FileNotFoundError(2, "No such file or directory", path)

        def prepare(rank: int) -> None:
            if rank:
                os.chdir = missing  # type: ignore[assignment]

        ended = run(["mcore2hf", source, tmp_path / "out"], 2, prepare)
        assert [one.code for one in ended] == [1, 1] and ended[1].said == ""
        assert f"error: rank 1 cannot enter {Path.cwd()}, where rank 0 is: No such file or directory\n" in ended[0].said
        assert not [*tmp_path.iterdir()]
