"""torchrun itself: on one host, and on two, each in a namespace with a hostname of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from killing import tree
from processes import Ended, document, free_port, run, wait_for
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf

from vlconv import converters

pytestmark = pytest.mark.slow

LAUNCHED = Path(__file__).parents[1] / "launched.py"
AS_HOST = ["unshare", "--map-root-user", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"']
HOSTS = ("first-host", "second-host")
SOON = 10.0
"""Seconds within which all have ended; torchrun looks at its processes every tenth of one."""


class Torchrun:
    """Two launchers of two processes each, that are at work.

    Args:
        args: of vlconv.
        folder: empty; to keep what is said.
        environ: is otherwise in the environment.
    """

    def __init__(self, args: Sequence[object], folder: Path, **environ: object) -> None:
        self._folder, self._at_work = folder, folder / "at work"
        self._at_work.mkdir()
        environ |= {"AT_WORK": self._at_work, "OMP_NUM_THREADS": 1}
        self._environ = os.environ | {name: str(value) for name, value in environ.items()}
        launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2"]
        launch += ["--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}", "--local-addr", "127.0.0.1"]
        self._command = [*launch, LAUNCHED, *map(str, args)]
        self._launchers = [self._start(host) for host in HOSTS]

    def _start(self, host: str) -> subprocess.Popen[bytes]:
        with (self._folder / host).open("wb") as said:
            return subprocess.Popen([*AS_HOST, host, *self._command], stdout=said, stderr=said, env=self._environ)

    def workers(self) -> dict[int, tuple[str, int]]:
        """Rank -> host, and the process of its launcher; once all have begun."""
        wait_for(lambda: len(found := self._seen()) == 4 and all(found.values()))
        return {int(rank): (text.split()[0], int(text.split()[1])) for rank, text in self._seen().items()}

    def _seen(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self._at_work.iterdir()}

    def ended(self) -> list[Ended]:
        """Wait for both."""
        codes = [launcher.wait(90) for launcher in self._launchers]
        return [Ended(code, (self._folder / host).read_text()) for code, host in zip(codes, HOSTS, strict=True)]


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    if sys.platform != "linux" or subprocess.run([*AS_HOST, HOSTS[0], "true"], check=False).returncode:
        pytest.skip("no namespace of host names can be made here")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as hf/ and mcore/, and another/ in which a tensor differs."""
    work = tmp_path_factory.mktemp("models")
    config = tiny_config()
    weights = tiny_weights(tiny_shapes(config))
    write_tiny_hf(work / "hf", config, shards=2, tensors=weights)
    converters.hf2mcore(work / "hf", work / "mcore")
    changed = {name: tensor.clone() for name, tensor in weights.items()}
    changed["model.language_model.norm.weight"] += torch.ones(64, dtype=torch.bfloat16)
    write_tiny_hf(work / "another", config, tensors=changed)
    return work


COMMANDS: dict[str, tuple[str, ...]] = {
    "mcore2hf": ("mcore", "--max-shard-size", "200kB"),
    "hf2mcore": ("hf",),
    "mcore2mcore": ("mcore", "--as-layout", "pai"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_two_hosts_write_the_same_bytes(models: Path, tmp_path: Path, command: str) -> None:
    source, *options = COMMANDS[command]
    (alone,) = run([command, models / source, tmp_path / "alone", *options], 1)
    (tmp_path / "job").mkdir()
    job = Torchrun([command, models / source, tmp_path / "out", *options, "--json"], tmp_path / "job")
    ended = job.ended()
    assert [one.code for one in [alone, *ended]] == [0, 0, 0], ended
    assert {host for host, _ in job.workers().values()} == set(HOSTS)
    told = [document(one.said) for one in ended if "{\n" in one.said]
    assert [(one["ranks"], one["hosts"]) for one in told] == [(4, 2)]
    assert told[0]["facts"]["ranks"].startswith("4 processes on 2 hosts, ")
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "job", "out"]


def test_two_hosts_find_the_same_differences(models: Path, tmp_path: Path) -> None:
    (alone,) = run(["verify", models / "mcore", models / "another", "--json"], 1)
    job = Torchrun(["verify", models / "mcore", models / "another", "--json"], tmp_path)
    ended = job.ended()
    assert [one.code for one in [alone, *ended]] == [1, 1, 1], ended  # torchrun says 1 of any code
    assert {host for host, _ in job.workers().values()} == set(HOSTS)
    (told,) = [document_of(one.said) for one in ended if "{\n" in one.said]
    assert (told["ranks"], told["hosts"]) == (4, 2)
    assert told["differences"] == document(alone.said)["differences"] != []


def document_of(said: str) -> dict[str, object]:
    """The result, before which and behind which torchrun has its say."""
    begin = said.index("{\n")
    return document(said[begin : said.index("\n}\n", begin) + 2])


@pytest.mark.parametrize("rank", [0, 3])
@pytest.mark.parametrize("whole", [False, True], ids=["launcher", "host"])
def test_a_host_or_its_launcher_is_killed(models: Path, tmp_path: Path, rank: int, whole: bool) -> None:
    """Of a host whose launcher alone is killed, the processes would work on, and nobody hear of it."""
    (tmp_path / "case").mkdir()
    (tmp_path / "job").mkdir()
    job = Torchrun(["mcore2hf", models / "mcore", tmp_path / "case" / "out"], tmp_path / "job", PAUSE=0.3)
    workers = job.workers()
    host, launcher = workers[rank]
    begin = time.monotonic()
    for process in [launcher, *(children(launcher) if whole else [])]:
        os.kill(process, signal.SIGKILL)
    ended = dict(zip(HOSTS, job.ended(), strict=True))
    assert time.monotonic() - begin < SOON
    codes = {host: -signal.SIGKILL}
    assert {name: one.code for name, one in ended.items()} == dict.fromkeys(HOSTS, 1) | codes
    wait_for(lambda: not alive(LAUNCHED, tmp_path), SOON)
    errors = [line for one in ended.values() for line in one.said.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, ended
    if not whole:
        assert errors[0].startswith("error: the launcher that has started this process is gone: it was killed")
        assert sorted((tmp_path / "case").iterdir()) == []
    elif rank:
        assert f" on {host} ended without a word: it was killed" in errors[0]
        assert sorted((tmp_path / "case").iterdir()) == []
    else:  # nobody clears away, as after any kill; the next run does
        assert f": rank 0 on {host} is gone, and all stop" in errors[0]
        assert [path.name for path in (tmp_path / "case").iterdir()] == ["out.partial"]


def children(process: int) -> list[int]:
    return [*map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())]


def alive(*named: Path) -> list[str]:
    """Processes with all of these in their command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_text())
        except OSError:  # gone meanwhile
            continue
    return [text for text in found if all(str(name) in text for name in named)]


def one_host(args: Sequence[object], *options: str, **environ: object) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port())]
    return subprocess.run(
        [*launch, *options, *map(str, args)],
        env=os.environ | {name: str(value) for name, value in environ.items()},
        capture_output=True,
        text=True,
        check=False,
    )


def test_there_and_back(source: Path, tmp_path: Path) -> None:
    for args in (["mcore2hf", source, tmp_path / "hf"], ["hf2mcore", tmp_path / "hf", tmp_path / "mcore", "--json"]):
        done = one_host(["-m", "vlconv", *args])
        assert done.returncode == 0, done.stderr
    assert document(done.stdout)["ranks"] == 2
    assert converters.verify(source, tmp_path / "mcore").status == "same"


def test_all_are_started_anew(source: Path, tmp_path: Path) -> None:
    """They meet once more at the place that knows of their predecessors."""
    args = [LAUNCHED, "mcore2hf", source, tmp_path / "out"]
    done = one_host(args, "--max-restarts", "1", AT_WORK=tmp_path, FALLS=1)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("error: rank 1 on ") == 1
    assert converters.verify(source, tmp_path / "out").status == "same"
