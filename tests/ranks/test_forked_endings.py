"""A conversion whose forked process is killed, or that is ended itself: all end within seconds, and nothing is left."""

from __future__ import annotations

import os
import signal

import pytest
from at_work import Work, soon
from killing import tree
from processes import Job

from vlconv.converters import mcore2hf
from vlconv.converters.conversion import fill
from vlconv.converters.ranks.forks import Forks

SIZE = 3


def begin(work: Work) -> tuple[Job, list[int]]:
    """The command, and the processes that it has forked; once each of them has written a window."""

    def forked(rank: int) -> None:
        fill.team_for = lambda nbytes, processes: Forks(SIZE)  # type: ignore[assignment]

    job = work.begin(1, forked, SIZE)
    return job, [process for process in work.begun() if process not in job.pids]


def test_a_forked_process_is_killed(work: Work) -> None:
    job, forked = begin(work)
    os.kill(forked[0], signal.SIGKILL)
    (ended,) = soon(job)
    assert ended.code == 1 and f"error: process {forked[0]}, which did a part of the work, ended" in ended.said
    assert "Try again with fewer --threads." in ended.said and ended.said.count("error") == 1
    assert work.left() == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["INT", "TERM"])
def test_a_signal_to_all(work: Work, number: signal.Signals, code: int) -> None:
    job, forked = begin(work)
    for process in (*forked, job.pids[0]):
        os.kill(process, number)
    (ended,) = soon(job)
    assert ended.code == code and ended.said.count("interrupted: ") == 1
    assert work.left() == []


def test_the_command_is_killed(work: Work) -> None:
    """Nobody clears away, as after any kill; the next run does."""
    job, _ = begin(work)
    job.kill(0)
    assert soon(job)[0].code == -9
    assert work.left() == ["out.partial"]
    mcore2hf(work.source, work.target)
    assert work.left() == ["out"]
    mcore2hf(work.source, work.target.parent / "alone")
    assert tree(work.target) == tree(work.target.parent / "alone")
