"""How much of the machine a run takes: its threads, and the memory that each may hold."""

from __future__ import annotations

import os
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple

from .errors import OptionError, sized
from .tensors.tiling import WINDOW

BASE = 64 << 20
"""Bytes of the process itself, without its threads."""

BESIDE = 4 << 20
"""Bytes that a thread takes beside its window and as much again, where rows are put in another order."""

SMALLEST = 1 << 20
"""Bytes of the smallest window."""

FEWEST, MOST = 4, 8
"""Threads that are of use on any machine: reading and writing wait for the disk more than for a processor, and on one
of 16 cores more of them took no less time and more of the processors'."""

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much processor time a container gets: microseconds of so many, or "max"."""


neighbours: ContextVar[int] = ContextVar("neighbours", default=1)
"""How many processes of a run share this machine."""


class Workers(NamedTuple):
    """Threads, and bytes that one of them moves at a time."""

    threads: int
    window: int = WINDOW

    @property
    def memory(self) -> int:
        """Bytes of memory of the process and its threads, at most, beside the tables of what is to be done."""
        return BASE + self.threads * _each(self.window)


def workers_of(threads: int | None, memory: int | None = None, *, most: int = MOST) -> Workers:
    """As many workers as are asked for, or as the machine has use for, within the memory given.

    Args:
        threads: None: by the number of processors.
        memory: bytes; None: as much as the threads take. Fewer threads come before smaller windows.
        most: threads that are of use for this work.

    Raises:
        OptionError: less memory than one thread needs.
    """
    near = neighbours.get()
    wanted = threads or max(-(-FEWEST // near), min(most, processors() // near))
    if memory is None:
        return Workers(wanted)
    least = Workers(1, SMALLEST).memory
    if memory < least:
        raise OptionError(
            f"--memory: {sized(memory)} is less than the {sized(least)} that a conversion takes",
            "Give more, or leave it out.",
        )
    count = min(wanted, max(threads or 1, (memory - BASE) // _each(WINDOW)))
    while (window := ((memory - BASE) // count - BESIDE) // 2) < SMALLEST:
        count -= 1
    return Workers(count, min(WINDOW, window // SMALLEST * SMALLEST))


def processes_of(workers: Workers) -> int:
    """Processes among which the threads are dealt out, two to each: so they keep within the memory of the threads."""
    return min(workers.threads, max(2, -(-workers.threads // 2)))


def _each(window: int) -> int:
    """Bytes of one thread."""
    return 2 * window + BESIDE


def processors() -> int:
    """Those that this process may use: of the machine's, what its affinity and its container's quota leave."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = QUOTA.read_text().split()
        return min(allowed, max(1, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # no such container, or "max"
        return allowed
