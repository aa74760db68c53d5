"""A conversion whose forked process is killed, or that is ended itself: all end within seconds, and nothing is left."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from killing import tree
from processes import Ended, Job, wait_for

from vlconv.converters import mcore2hf
from vlconv.converters.conversion import fill
from vlconv.converters.output.writing.filled import Filled
from vlconv.converters.ranks.forks import Forks

SIZE = 3
SOON = 5.0
"""Seconds within which all have ended."""


class Work:
    """A conversion by several processes that takes its time."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.target, self._begun = source, folder / "case" / "out", folder / "begun"
        self.target.parent.mkdir()
        self._begun.mkdir()

    def begin(self) -> tuple[Job, list[int]]:
        """The command, and the processes that it has forked; once each of them has written a window."""
        job = Job(["mcore2hf", self.source, self.target], 1, self._slow)
        wait_for(lambda: len([*self._begun.iterdir()]) == SIZE)
        return job, [int(path.name) for path in self._begun.iterdir() if path.name != str(job.pids[0])]

    def _slow(self, rank: int) -> None:
        add = Filled.add

        def adding(*args: Any) -> None:
            add(*args)
            (self._begun / str(os.getpid())).touch()
            time.sleep(0.2)

        Filled.add = adding  # type: ignore[method-assign]
        fill.team_for = lambda nbytes, processes: Forks(SIZE)  # type: ignore[assignment]

    def left(self) -> list[str]:
        return sorted(path.name for path in self.target.parent.iterdir())


@pytest.fixture
def work(source: Path, tmp_path: Path) -> Work:
    return Work(source, tmp_path)


def soon(job: Job) -> Ended:
    """What became of the command; its forked processes hold its output open as long as they live."""
    begin = time.monotonic()
    (ended,) = job.ended()
    assert time.monotonic() - begin < SOON and "Traceback" not in ended.said
    return ended


def test_a_forked_process_is_killed(work: Work) -> None:
    job, forked = work.begin()
    os.kill(forked[0], signal.SIGKILL)
    ended = soon(job)
    assert ended.code == 1 and f"error: process {forked[0]}, which did a part of the work, ended" in ended.said
    assert "Try again with fewer --threads." in ended.said and ended.said.count("error") == 1
    assert work.left() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_to_all(work: Work, number: signal.Signals, code: int) -> None:
    job, forked = work.begin()
    for process in (*forked, job.pids[0]):
        os.kill(process, number)
    ended = soon(job)
    assert ended.code == code and ended.said.count("interrupted: ") == 1
    assert work.left() == []


def test_the_command_is_killed(work: Work) -> None:
    """Nobody clears away, as after any kill; the next run does."""
    job, _ = work.begin()
    job.kill(0)
    assert soon(job).code == -9
    assert work.left() == ["out.partial"]
    mcore2hf(work.source, work.target)
    assert work.left() == ["out"]
    mcore2hf(work.source, work.target.parent / "alone")
    assert tree(work.target) == tree(work.target.parent / "alone")
