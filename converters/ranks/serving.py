"""Every rank but 0: it knows nothing but tasks, does its share of each, and leaves when rank 0 says so."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from queue import Empty, SimpleQueue
from typing import Any, NoReturn

from ..errors import RankError, shown, shown_path
from ..workers import neighbours
from .apart import EVERY
from .joining import Refused, meet
from .launcher import Launcher
from .line import Line, Lost
from .place import Place
from .team import Share
from .words import Beat, End, Finished, Order, Signalled, Told, Word, failed

BEAT = 0.5
"""Seconds between two words of how far a rank is."""

SILENCE = 60.0
"""Seconds after which rank 0 is taken for gone: more than it takes itself to miss another one, which it then names."""

PATIENCE = 30.0
"""Seconds in which a rank that failed waits for rank 0 to say that all leave."""

Leave = Callable[[int, str], NoReturn]
"""Ends the process at once, with an exit code and, if they are not "", last words. A thread may call it."""


def serve(place: Place, leave: Leave, signalled: Callable[[], int]) -> NoReturn:
    """Do what rank 0 wants, until it says that the run is over.

    Args:
        place: of this process.
        leave: ends it.
        signalled: the number of the signal that ended it; 0: none did.
    """
    server: _Server | None = None
    launcher = Launcher(place)
    try:
        line, hosts = meet(place)
        neighbours.set(place.near(hosts))
        server = _Server(line, hosts, launcher, leave)
        server.work()
    except BaseException as fault:
        number = signalled()
        try:
            if server:
                server.give_up(Signalled(number) if number else failed(fault))
            quiet = server or number or isinstance(fault, Refused)
            words = "" if quiet else f"rank {place.rank} on {shown(socket.gethostname())}: {fault}"
        finally:
            leave(128 + number if number else 1, words)
    raise AssertionError("it has left")


class _Server:
    """A process at the tasks of rank 0: a Member."""

    def __init__(self, line: Line, hosts: Sequence[str], launcher: Launcher, leave: Leave) -> None:
        self._line, self._host, self._launcher, self._leave = line, hosts[0], launcher, leave
        self._speaks = line.rank == 1 or hosts.index(hosts[line.rank]) == line.rank  # one of each host
        self.share = Share(line.rank, line.size)
        self._orders: SimpleQueue[Order | BaseException] = SimpleQueue()
        self._beat = Beat()
        self._heard = time.monotonic()
        # A thread sends: a signal's exception, in the main thread, would cut a word in two.
        self._words: SimpleQueue[Word] = SimpleQueue()
        for thread in (self._listen, self._speak, self._follow, self._watch):
            threading.Thread(target=thread, daemon=True).start()

    def work(self) -> None:
        """Do tasks, one after another, for ever."""
        while True:
            try:
                order = self._orders.get(timeout=EVERY)
            except Empty:
                continue
            if isinstance(order, BaseException):
                raise order
            self._go_to(order.directory)
            self._beat = Beat(order.number)
            order.task(self)
            self._words.put(Finished(self._beat.nbytes))

    def progress(self, nbytes: int) -> None:
        """See Member."""
        self._beat = Beat(self._beat.number, nbytes)

    def tell(self, found: Any) -> None:
        """See Member."""
        self._words.put(Told(found))

    def give_up(self, why: Word) -> None:
        """Say why, and wait for the end that rank 0 makes of all."""
        self._words.put(why)
        time.sleep(PATIENCE)

    def _go_to(self, directory: str) -> None:
        """Relative paths mean here what they mean to rank 0."""
        try:
            os.chdir(directory)
        except OSError as fault:
            raise RankError(
                f"rank {self._line.rank} cannot enter {shown_path(directory)}, where rank 0 is: {fault.strerror}",
                "Start the run from a directory that all hosts share.",
            ) from fault

    def _listen(self) -> None:
        """Hear rank 0, and leave when it says so or is gone."""
        try:
            while True:
                word = self._line.receive(0)
                self._heard = time.monotonic()
                if isinstance(word, End):
                    self._leave(word.code, "")
        except Lost:
            self._gone("is gone")

    def _speak(self) -> None:
        """Let rank 0 know what there is to say, else how far this is."""
        while True:
            try:
                word = self._words.get(timeout=BEAT)
            except Empty:
                word = self._beat
            try:
                self._line.send(0, word)
            except Lost:  # whoever listens tells
                return

    def _watch(self) -> None:
        """Leave where rank 0, maybe with its host or the network, or the launcher is gone without a word."""
        while time.monotonic() - self._heard < SILENCE:
            time.sleep(min(1.0, SILENCE / 4))
            if fault := self._launcher.gone():
                self.give_up(failed(fault))
                self._leave(1, "")
        self._gone(f"is not heard of for {SILENCE:.0f} seconds")

    def _follow(self) -> None:
        """Take the tasks that rank 0 gives to all."""
        try:
            while True:
                self._orders.put(self._line.spread())
        except Lost:  # whoever listens tells
            return
        except Exception as fault:  # a task that cannot be read here
            self._orders.put(fault)

    def _gone(self, how: str) -> NoReturn:
        words = f"rank {self._line.rank}: rank 0 on {shown(self._host)} {how}, and all stop"
        self._leave(1, words if self._speaks else "")
