"""How far a command is: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

from collections import deque
from threading import Lock
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

FIRST, EVERY = 1.0, 5.0
"""Seconds of a phase before its first line, and between two lines."""

SPAN = 12.0
"""Seconds that a speed is of: what is left will take as long as it goes now, not as it went an hour ago."""

STEP = 0.5
"""Seconds between two moments that are kept for that."""


class Meter(Protocol):
    """Shows how far a command is. Called from several threads."""

    def begin(self, phase: str) -> None:
        """What comes next is called so."""

    def show(self, done: int, total: int) -> None:
        """Bytes done of all bytes; fewer than before means that a new pass began."""

    def stop(self) -> None:
        """No more will come."""


class Pass:
    """One pass over some bytes: how long it takes so far, and how fast it goes now."""

    def __init__(self) -> None:
        self.begin = monotonic()
        self.done = 0
        self._seen = deque[tuple[float, int]]()  # moments, and how far it was then

    def words(self, done: int, total: int) -> str:
        """What is said once it has come so far."""
        now = monotonic()
        self.done = done
        if not self._seen or now >= self._seen[-1][0] + STEP:
            self._seen.append((now, done))
        while len(self._seen) > 1 and self._seen[1][0] <= now - SPAN:
            self._seen.popleft()
        then, before = self._seen[0]
        speed = (done - before) / (now - then) if now >= then + STEP else 0.0
        return line(done, total, now - self.begin, speed)


class Bar:
    """A bar that goes away when all is done."""

    def __init__(self, console: Console) -> None:
        columns = (
            TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=None, table_column=Column(max_width=40)),
            TextColumn("{task.fields[said]}", markup=False),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("working", start=False, total=None, said="")
        self._lock = Lock()
        self._pass = Pass()

    def begin(self, phase: str) -> None:
        """What comes next is called so."""
        with self._lock:
            self._pass = Pass()
            self._progress.reset(self._task, total=None, description=phase, said="")
            self._progress.start()

    def show(self, done: int, total: int) -> None:
        """Bytes done of all bytes."""
        with self._lock:
            if done < self._pass.done:
                self._pass = Pass()
            said = self._pass.words(done, total)
            self._progress.update(self._task, completed=done, total=total, said=said)
            self._progress.start()

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class Lines:
    """A line when a phase lasts, and then every few seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = Lock()
        self._phase = ""
        self._start()

    def _start(self) -> None:
        self._pass = Pass()
        self._next = self._pass.begin + FIRST

    def begin(self, phase: str) -> None:
        """What comes next is called so."""
        with self._lock:
            self._phase = f"{phase}: "
            self._start()

    def show(self, done: int, total: int) -> None:
        """Bytes done of all bytes."""
        with self._lock:
            if done < self._pass.done:
                self._start()
            said = self._pass.words(done, total)
            if (now := monotonic()) >= self._next:
                self._next = now + EVERY
                self._console.print(self._phase + said, soft_wrap=True)

    def stop(self) -> None:
        """Nothing to take away."""


def line(done: int, total: int, seconds: float, speed: float) -> str:
    """One line: "12.3 GB of 45.6 GB (26 %), 1.2 GB/s, 28 s left", or "0 bytes of 45.6 GB (0 %) in 28 s".

    Args:
        done, total: bytes.
        seconds: that it took so far; said while nothing comes.
        speed: bytes per second, now.
    """
    far = f"{decimal(done)} of {decimal(total)} ({100 * done // max(total, 1)} %)"
    if speed > 0:
        return f"{far}, {decimal(round(speed))}/s, {duration((total - done) / speed)} left"
    return f"{far} in {duration(seconds)}"


def duration(seconds: float) -> str:
    """A time for people: "0.4 s", "28 s", "3 min 5 s", "2 h 7 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
