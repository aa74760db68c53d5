"""Several processes of this machine at one task: they are forked for it, and gone when it is done.

Threads of one process wait for each other's Python.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import RankError
from ..signals import NUMBERS, Waiting
from ..workers import processors
from .lead import led
from .own import Own
from .team import Share, Stopped, Task, Team
from .words import Beat, Failed, Finished, Told, Word, failed

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

WORTH = 64 << 20
"""Bytes for which one more process is worth its start."""

MOMENT = 0.02
"""Seconds between two looks at what was said."""

_allowed: ContextVar[bool] = ContextVar("allowed", default=False)


@contextmanager
def allowed() -> Iterator[None]:
    """Within it this process may be forked. Only who owns the process can say so, as the command line does."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def team_for(nbytes: int, processes: int) -> Team | None:
    """The processes that do a task of so many bytes; None: this one does, as it is alone and may not be forked.

    Args:
        nbytes: to read or to write.
        processes: that are of use on this machine, which may have fewer processors.
    """
    return led.get() or _forks(nbytes, processes)


def _forks(nbytes: int, processes: int) -> Forks | None:
    count = min(processors(), processes, nbytes // WORTH)
    # A forked process has none of the threads that torch has started, and waits for them.
    able = _allowed.get() and sys.platform == "linux" and "torch" not in sys.modules
    return Forks(count) if able and count > 1 else None


class Forks:
    """So many processes, this one among them: a Team."""

    several_hosts = False

    def __init__(self, size: int) -> None:
        self.size = size

    def each(self, threads: int) -> int:
        """See Team."""
        return -(-threads // self.size)

    def run(self, task: Task, told: Callable[[Any], None], progress: Callable[[int], None]) -> None:
        """See Team."""
        words: SimpleQueue[tuple[int, Word | BaseException]] = SimpleQueue()
        own = Own(task, Share(0, self.size), 0, lambda rank, word: words.put((rank, word)))
        children: list[_Child] = []
        try:
            for rank in range(1, self.size):  # before there is a thread that a fork would lack
                with Waiting():
                    children.append(_Child(task, Share(rank, self.size), children))
            own.start()
            _gather(words, children, told, progress)
        finally:
            own.stop()
            with Waiting():
                for child in children:
                    child.end()
            own.join()


def _gather(
    words: SimpleQueue[tuple[int, Word | BaseException]],
    children: Sequence[_Child],
    told: Callable[[Any], None],
    progress: Callable[[int], None],
) -> None:
    done, left = [0] * (len(children) + 1), set(range(len(children) + 1))
    while left:
        for rank, word in [*_of_own(words), *_of_children(children, left)]:
            if isinstance(word, BaseException):
                raise word
            if isinstance(word, Told):
                told(word.what)
            elif isinstance(word, Beat | Finished):
                done[rank] = word.nbytes
            if isinstance(word, Finished):
                left.discard(rank)
        progress(sum(done))


def _of_own(words: SimpleQueue[tuple[int, Word | BaseException]]) -> Iterator[tuple[int, Word | BaseException]]:
    try:
        while True:
            yield words.get_nowait()
    except Empty:
        return


def _of_children(children: Sequence[_Child], left: set[int]) -> Iterator[tuple[int, Word | BaseException]]:
    """What the children say within a moment."""
    from multiprocessing.connection import wait

    waiting = [child for child in children if child.share.rank in left]
    ready = wait([child.connection for child in waiting], MOMENT)
    for child in waiting:
        if child.connection in ready:
            yield child.share.rank, child.said()


class _Child:
    """A process that does a share of a task, and what it says.

    Attributes:
        share: its part.
        connection: where its words come.
    """

    def __init__(self, task: Task, share: Share, elder: Sequence[_Child]) -> None:
        from multiprocessing import Pipe

        self.share = share
        self.connection, speaking = Pipe(duplex=False)
        self._pid = os.fork()
        if not self._pid:
            _serve(task, share, speaking, [self, *elder])
        speaking.close()

    def said(self) -> Word | BaseException:
        """Its next word."""
        try:
            word: Word = self.connection.recv()
        except EOFError:
            return RankError(
                f"process {self._pid}, which did a part of the work, ended without a word: it was killed, or had not "
                "enough memory",
                "Try again with fewer --threads.",
            )
        return word.fault if isinstance(word, Failed) else word

    def end(self) -> None:
        """It is of no use any more, or has ended."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        self.connection.close()


def _serve(task: Task, share: Share, speaking: Connection, known: Sequence[_Child]) -> NoReturn:
    """What a forked process does: never a step of what called it, whatever happens."""
    try:
        for number in NUMBERS:  # they are for the parent, which ends this one
            signal.signal(number, signal.SIG_IGN)
        gc.freeze()  # a collection would touch, and so copy, every page that is shared with the parent
        for child in known:  # else nobody would notice that the parent is gone
            child.connection.close()
        member = _Member(share, speaking)
        try:
            task(member)
            speaking.send(Finished(member.nbytes))
        except Exception as fault:
            speaking.send(failed(fault))
    finally:
        os._exit(0)


class _Member:
    """A forked process at its share: a Member.

    Attributes:
        share: see Member.
        nbytes: that are done.
    """

    def __init__(self, share: Share, speaking: Connection) -> None:
        self.share = share
        self.nbytes = 0
        self._speaking = speaking

    def progress(self, nbytes: int) -> None:
        """See Member."""
        self.nbytes = nbytes
        try:
            self._speaking.send(Beat(0, nbytes))
        except OSError as fault:  # the parent is gone
            raise Stopped from fault

    def tell(self, found: Any) -> None:
        """See Member."""
        self._speaking.send(Told(found))
