"""Bytes done, bytes per second and time left: a bar on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

from threading import Lock
from time import monotonic
from typing import Protocol

from rich.console import Console
from rich.filesize import decimal
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

EVERY = 5.0
"""Seconds between two lines."""


class Meter(Protocol):
    """Shows how far a command is. Called from several threads."""

    def show(self, done: int, total: int) -> None:
        """Bytes done of all bytes; fewer than before means that a new pass began."""

    def stop(self) -> None:
        """No more will come."""


class Bar:
    """A bar that goes away when all is done."""

    def __init__(self, console: Console) -> None:
        columns = (
            BarColumn(),
            TaskProgressColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
        )
        self._progress = Progress(*columns, console=console, transient=True)
        self._task = self._progress.add_task("", start=False, total=None)
        self._lock = Lock()
        self._last = 0

    def show(self, done: int, total: int) -> None:
        """Bytes done of all bytes."""
        with self._lock:
            if done < self._last:
                self._progress.reset(self._task)
            self._last = done
            self._progress.start_task(self._task)
            self._progress.update(self._task, completed=done, total=total)
            self._progress.start()

    def stop(self) -> None:
        """Take the bar away."""
        self._progress.stop()


class Lines:
    """A line every few seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._lock = Lock()
        self._start = self._next = 0.0
        self._last: int | None = None

    def show(self, done: int, total: int) -> None:
        """Bytes done of all bytes."""
        with self._lock:
            now = monotonic()
            if self._last is None or done < self._last:
                self._start, self._first, self._next = now, done, now + EVERY
            self._last = done
            if now >= self._next:
                self._next = now + EVERY
                self._console.print(line(done, total, (done - self._first) / (now - self._start)), soft_wrap=True)

    def stop(self) -> None:
        """Nothing to take away."""


def line(done: int, total: int, speed: float) -> str:
    """One line: "12.3 GB of 45.6 GB (27 %), 1.2 GB/s, 28 s left"."""
    left = f", {duration((total - done) / speed)} left" if speed > 0 else ""
    return f"{decimal(done)} of {decimal(total)} ({100 * done / max(total, 1):.0f} %), {decimal(int(speed))}/s{left}"


def duration(seconds: float) -> str:
    """A time for people: "0.4 s", "28 s", "3 min 5 s", "2 h 7 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
