"""Work that waits in a library, done in another thread, so that the one that waits for it is met by signals."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TypeVar

Found = TypeVar("Found")

EVERY = 0.2
"""Seconds between two looks at what else happens."""


def apart(work: Callable[[], Found], watch: Callable[[], object]) -> Found:
    """Do work in another thread.

    Args:
        work: what it returns or raises is returned or raised here.
        watch: called every moment; if it raises, the work is waited for no longer.
    """
    ended: SimpleQueue[tuple[list[Found], BaseException | None]] = SimpleQueue()

    def run() -> None:
        try:
            ended.put(([work()], None))
        except BaseException as fault:
            ended.put(([], fault))

    threading.Thread(target=run, daemon=True).start()
    while True:
        try:
            found, fault = ended.get(timeout=EVERY)
        except Empty:
            watch()
            continue
        if fault is not None:
            raise fault
        return found[0]
