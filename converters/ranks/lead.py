"""Rank 0: it runs the command, gives the others tasks, and does its own share of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..report import Report
from ..workers import neighbours
from .apart import EVERY, apart
from .joining import meet
from .launcher import Launcher
from .line import Line
from .others import GRACE, Others
from .own import Own
from .place import Place
from .team import Share, Task
from .words import Beat, Finished, Order, Told, Word

led: ContextVar[Lead | None] = ContextVar("led", default=None)
"""The lead of the run; None: it has one process. Only who asks for it sets it, as the command line does."""


def join(place: Place) -> Lead:
    """Meet the other processes as rank 0. Errors as `meet`."""
    launcher = Launcher(place)
    line, hosts = meet(place)
    return Lead(line, hosts, launcher, place.near(hosts))


class Lead:
    """The ranks of a run: a Team.

    Args:
        line: the connections.
        hosts: of all ranks.
        launcher: of this process.
        near: processes on this host.
    """

    several_hosts = True

    def __init__(self, line: Line, hosts: Sequence[str], launcher: Launcher, near: int = 1) -> None:
        self._line, self._hosts, self._near = line, hosts, near
        self._words: SimpleQueue[tuple[int, Word | BaseException]] = SimpleQueue()
        self._number = 0
        self._done = [0] * line.size
        self._others = Others(line, hosts, self._take, launcher)

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Within it conversions and comparisons are done by all ranks."""
        tokens = led.set(self), neighbours.set(self._near)
        try:
            yield
        finally:
            led.reset(tokens[0])
            neighbours.reset(tokens[1])

    def describe(self, report: Report, threads: int) -> None:
        """Tell how many processes there are."""
        size, hosts = self._line.size, len(set(self._hosts))
        where = f"{hosts} hosts" if hosts > 1 else "one host"
        each = "a thread" if threads == 1 else f"{threads} threads"
        report.fact("ranks", f"{size} processes on {where}, {each} each", ranks=size, hosts=hosts)

    def each(self, threads: int) -> int:
        """See Team."""
        return threads

    def run(self, task: Task, told: Callable[[Any], None], progress: Callable[[int], None]) -> None:
        """See Team. The task is pickled, once, as a whole. After an error nothing more can be run."""
        self._number += 1
        self._done = [0] * self._line.size
        own = Own(task, Share(0, self._line.size), self._number, self._take)
        try:
            self.check()
            apart(partial(self._line.spread, Order(self._number, str(Path.cwd()), task)), self.check)
            own.start()
            self._gather(told, progress)
        except BaseException as fault:
            own.stop()
            if not isinstance(fault, Exception):
                self._others.trouble(GRACE)  # what a signal comes from, maybe
            self.end(1)
            raise
        finally:
            own.join()

    def check(self) -> None:
        """Raise what went wrong with another rank."""
        self._others.check()

    def cause(self, fault: BaseException) -> BaseException:
        """What stopped the run: of a signal, the end of another rank that it came from."""
        if isinstance(fault, Exception):
            return fault
        trouble = self._others.trouble(GRACE)
        if trouble is None or trouble.grade > 1:
            return fault
        for note in getattr(fault, "__notes__", []):
            trouble.fault.add_note(note)
        return trouble.fault

    def end(self, code: int) -> None:
        """The others leave with that exit code."""
        self._others.end(code)

    def _gather(self, told: Callable[[Any], None], progress: Callable[[int], None]) -> None:
        left = set(range(self._line.size))
        while left:
            try:
                rank, word = self._words.get(timeout=EVERY)
            except Empty:
                word = Beat()
            if isinstance(word, BaseException):
                raise word
            if isinstance(word, Told):
                told(word.what)
            elif isinstance(word, Finished):
                self._done[rank] = word.nbytes
                left.discard(rank)
            self.check()
            progress(sum(self._done))

    def _take(self, rank: int, word: Word | BaseException) -> None:
        if not isinstance(word, Beat):
            self._words.put((rank, word))
        elif word.number == self._number:
            self._done[rank] = word.nbytes
