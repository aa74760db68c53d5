"""Rank 0 at its own share of a task."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from .team import Share, Stopped, Task
from .words import Beat, Finished, Told, Word


class Own:
    """It works in a thread of its own: a Member.

    Args:
        task: what it does.
        share: its part.
        number: of the task.
        take: given its words, and what stops it.
    """

    def __init__(
        self, task: Task, share: Share, number: int, take: Callable[[int, Word | BaseException], None]
    ) -> None:
        self._task, self._number, self._take = task, number, take
        self.share = share
        self._nbytes = 0
        self._stopped = False
        self._thread = threading.Thread(target=copy_context().run, args=(self._work,), daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Its share is of no use any more: it ends soon."""
        self._stopped = True

    def join(self) -> None:
        """Wait until it has ended, if it has begun."""
        if self._thread.ident is not None:
            self._thread.join()

    def progress(self, nbytes: int) -> None:
        """See Member."""
        if self._stopped:
            raise Stopped
        self._nbytes = nbytes
        self._take(0, Beat(self._number, nbytes))

    def tell(self, found: Any) -> None:
        """See Member."""
        self._take(0, Told(found))

    def _work(self) -> None:
        try:
            self._task(self)
            self._take(0, Finished(self._nbytes))
        except BaseException as fault:
            self._take(0, fault)
