"""A conversion that several processes are at, so slowly that a test can end one of them on the way."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from processes import Ended, Job, Prepare, run, wait_for

from vlconv.converters.output.writing.filled import Filled

SOON = 5.0
"""Seconds within which all have ended."""


def nothing(rank: int) -> None:
    """All is as it is."""


class Work:
    """A conversion into an empty folder.

    Args:
        source: of it.
        folder: empty.

    Attributes:
        target: what it writes.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.target, self._begun = source, folder / "case" / "out", folder / "begun"
        self.target.parent.mkdir()
        self._begun.mkdir()

    def begin(self, size: int, prepare: Prepare = nothing, forks: int = 1, **environ: object) -> Job:
        """Returns once every process has written a window.

        Args:
            size: processes of a launcher.
            prepare: as Job.
            forks: of each of them, itself included.
            environ: as Job.
        """

        def slowly(rank: int) -> None:
            add = Filled.add

            def adding(*args: Any) -> None:
                add(*args)
                (self._begun / str(os.getpid())).touch()
                time.sleep(0.2)

            Filled.add = adding  # type: ignore[method-assign]
            prepare(rank)

        job = Job(["mcore2hf", self.source, self.target, "--threads", "2"], size, slowly, **environ)
        wait_for(lambda: len(self.begun()) == size * forks)
        return job

    def run(self, size: int, prepare: Prepare = nothing) -> list[Ended]:
        """As fast as it goes, to its end."""
        return run(["mcore2hf", self.source, self.target], size, prepare)

    def begun(self) -> list[int]:
        """The processes that have written a window."""
        return [int(path.name) for path in self._begun.iterdir()]

    def left(self) -> list[str]:
        """What lies where the output is to be."""
        return sorted(path.name for path in self.target.parent.iterdir())


def soon(job: Job) -> list[Ended]:
    """What becomes of all, within seconds; a process that is forked holds its parent's output open while it lives."""
    begin = time.monotonic()
    ended = job.ended()
    assert time.monotonic() - begin < SOON
    assert not [one for one in ended if "Traceback" in one.said]
    return ended
