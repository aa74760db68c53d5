"""The child that unpickles ends with its parent, however that ends, and no signal leaves it alone."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest

from vlconv.converters.formats.pickles import sandbox

PARENT = """
import sys
from vlconv.converters.formats.pickles.sandbox import ask
with open(sys.argv[1], "rb") as file:
    ask("tree", file, 0, int(sys.argv[2]), None)
"""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A pickle at which the child works for seconds."""
    path = tmp_path_factory.mktemp("pickle") / "slow.pkl"
    path.write_bytes(b"".join((pickle.MARK, pickle.EMPTY_DICT * 2_000_000, pickle.LIST, pickle.STOP)))
    return path, path.stat().st_size


def children(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task")
    return [int(n) for task in tasks.iterdir() for n in (task / "children").read_text().split()]


def running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def soon(what: Callable[[], object]) -> bool:
    """Whether it comes true within seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.005)
    return False


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_goes_with_its_parent(slow: tuple[Path, int], number: signal.Signals) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(slow[0]), str(slow[1])], stderr=subprocess.DEVNULL)
    assert soon(lambda: children(parent.pid))
    (child,) = children(parent.pid)
    assert soon(lambda: b"sandbox_child" in Path(f"/proc/{child}/cmdline").read_bytes())
    before = time.monotonic()
    parent.send_signal(number)
    parent.wait()
    assert soon(lambda: not running(child))
    assert time.monotonic() - before < 1


def test_a_parent_that_was_faster(slow: tuple[Path, int]) -> None:
    """Dead before the child could begin to watch."""
    with slow[0].open("rb") as file:
        fd = file.fileno()
        command = [sys.executable, *sandbox.CHILD, "tree", str(fd), "0", str(slow[1]), "-1"]
        ended = subprocess.run(command, stdin=subprocess.DEVNULL, pass_fds=[fd], capture_output=True, check=False)
    assert (ended.returncode, ended.stdout) == (1, b"")


def test_a_signal_between_its_start_and_the_reading(slow: tuple[Path, int], monkeypatch: pytest.MonkeyPatch) -> None:
    class Came(Exception):
        pass

    def come(number: int, frame: FrameType | None) -> None:
        raise Came

    started, popen = [], subprocess.Popen

    def interrupted(*args: object, **options: object) -> object:
        started.append(popen(*args, **options))  # type: ignore[call-overload]
        signal.raise_signal(signal.SIGTERM)
        return started[0]

    monkeypatch.setattr(sandbox.subprocess, "Popen", interrupted)
    before = signal.signal(signal.SIGTERM, come)
    try:
        with slow[0].open("rb") as file, pytest.raises(Came):
            sandbox.ask("tree", file, 0, slow[1], None)
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(ChildProcessError):  # it was waited for
        os.waitpid(started[0].pid, os.WNOHANG)
    assert started[0].returncode == -signal.SIGKILL
