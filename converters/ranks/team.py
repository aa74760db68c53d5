"""What the processes of a run do together: tasks, of which each does a share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol


class Share(NamedTuple):
    """The part of a task that is one process'."""

    rank: int
    size: int

    def span(self, total: int) -> range:
        """Of `total` things in a row, those that belong to it."""
        return range(total * self.rank // self.size, total * (self.rank + 1) // self.size)


class Member(Protocol):
    """A process at a task."""

    @property
    def share(self) -> Share:
        """What is its part."""

    def progress(self, nbytes: int) -> None:
        """So many bytes of its share are done. To be called every moment: by an exception it ends what has no use."""

    def tell(self, found: Any) -> None:
        """Let rank 0 know what was found; it must be picklable."""


class Task(Protocol):
    """What all ranks do, each its share. It is made by rank 0 and must be picklable, once, as a whole."""

    def __call__(self, member: Member) -> None:
        """Do a member's share."""


class Team(Protocol):
    """Processes that do tasks together, as the one that plans them knows them."""

    @property
    def several_hosts(self) -> bool:
        """They may be on several hosts, which see what another one wrote only once it is flushed."""

    def each(self, threads: int) -> int:
        """Threads of each process, of so many that this process would have."""

    def run(self, task: Task, told: Callable[[Any], None], progress: Callable[[int], None]) -> None:
        """Let all do a task.

        Args:
            task: what they do.
            told: given what each of them tells.
            progress: told of the bytes that all have done, every moment.

        Raises:
            RankError: a process is gone.
            Exception: whatever stopped one. All have stopped then.
        """


class Stopped(Exception):
    """The run has ended meanwhile: a share is of no use any more."""
