"""The other ranks, as rank 0 knows them: what they say, whether they are still there, and what went wrong with one."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ..errors import RankError, shown
from .launcher import Launcher
from .line import Line, Lost
from .words import Beat, Elsewhere, End, Failed, Signalled, Word

SILENCE = 30.0
"""Seconds after which a rank that is not heard of is taken for gone: a host or the network may end without a word."""

BEAT = 5.0
"""Seconds between two words that rank 0 is here."""

GRACE = 0.3
"""Seconds in which a second rank may tell why the first one ended: launchers end all when one has ended."""

FAREWELL = 10.0
"""Seconds in which ranks are to leave when they are told to."""


class Trouble(NamedTuple):
    """What went wrong with a rank: the smallest tells most.

    Attributes:
        grade: 0 for an error that it told, 1 for an end without a word, 2 for a signal, which launchers send to those
            that are left.
        number: of those that were seen.
        fault: what is said of it.
        time: when it was seen, by the monotonic clock.
    """

    grade: int
    number: int
    fault: Exception
    time: float


class Others:
    """Listens to all ranks but 0, each in a thread.

    Args:
        line: the connections.
        hosts: of all ranks.
        take: given each word of a rank that is no trouble.
        launcher: of rank 0, without which nothing goes on, either.
    """

    def __init__(self, line: Line, hosts: Sequence[str], take: Callable[[int, Word], None], launcher: Launcher) -> None:
        self._line, self._hosts, self._take, self._launcher = line, hosts, take, launcher
        self._heard = dict.fromkeys(range(1, line.size), time.monotonic())
        self._troubles: list[Trouble] = []
        self._ending = threading.Event()
        self._listeners = {rank: self._thread(self._listen, rank) for rank in self._heard}
        for work in (self._beat, self._watch):  # a word to who is gone may never be taken
            self._thread(work)

    def trouble(self, seconds: float = 0.0) -> Trouble | None:
        """What went wrong, if anything did, or does within some seconds."""
        end = time.monotonic() + seconds
        while not self._troubles and time.monotonic() < end:
            time.sleep(0.01)
        if self._troubles:  # mpirun leaves half a second from a rank's end to that of all
            time.sleep(max(0.0, self._troubles[0].time + GRACE - time.monotonic()))
        return min(self._troubles, key=lambda one: one[:2], default=None)

    def check(self) -> None:
        """Raise what went wrong."""
        if self._troubles and (trouble := self.trouble()):
            raise trouble.fault

    def end(self, code: int) -> None:
        """Let all leave with an exit code, and wait a while until they have."""
        if self._ending.is_set():
            return
        self._ending.set()
        for rank, listener in self._listeners.items():
            if listener.is_alive():
                self._thread(self._say, rank, End(code))
        end = time.monotonic() + FAREWELL
        for listener in self._listeners.values():
            listener.join(max(0.0, end - time.monotonic()))

    def _listen(self, rank: int) -> None:
        why = "ended without a word: it was killed, or had not enough memory"
        try:
            while True:
                word = self._line.receive(rank)
                self._heard[rank] = time.monotonic()
                if isinstance(word, Failed):
                    word.fault.add_note(f"That was {self._named(rank)}.")
                    word.fault.__cause__ = Elsewhere(word.trace)
                    self._add(0, word.fault)
                    why = ""
                elif isinstance(word, Signalled):
                    self._add(2, RankError(f"{self._named(rank)} was ended by {signal.Signals(word.number).name}"))
                    why = ""
                else:
                    self._take(rank, word)
        except Lost:
            pass
        except Exception as fault:
            why = f"said what cannot be read here: {shown(fault)}"
        self._heard.pop(rank, None)
        if why:
            self._add(1, RankError(f"{self._named(rank)} {why}"))

    def _beat(self) -> None:
        while not self._ending.wait(BEAT):
            for rank in list(self._heard):
                self._say(rank, Beat())

    def _watch(self) -> None:
        while not self._ending.wait(min(1.0, SILENCE / 4)):
            if fault := self._launcher.gone():
                self._add(1, fault)
                return
            now = time.monotonic()
            for rank in [rank for rank, heard in list(self._heard.items()) if now - heard > SILENCE]:
                self._heard.pop(rank, None)
                self._add(1, RankError(f"nothing is heard of {self._named(rank)} for {SILENCE:.0f} seconds"))

    def _say(self, rank: int, word: Word) -> None:
        try:
            self._line.send(rank, word)
        except Lost:  # its listener tells
            return

    def _add(self, grade: int, fault: Exception) -> None:
        if not self._ending.is_set():
            self._troubles.append(Trouble(grade, len(self._troubles), fault, time.monotonic()))

    def _named(self, rank: int) -> str:
        return f"rank {rank} on {shown(self._hosts[rank])}"

    @staticmethod
    def _thread(work: Callable[..., None], *args: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=args, daemon=True)
        thread.start()
        return thread
