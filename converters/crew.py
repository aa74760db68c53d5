"""Several threads at one work, and the one that waits for them, tells how far they are, and is met by signals."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from .signals import Waiting

EVERY = 0.2
"""Seconds between two looks at how far they are."""

Job = Callable[[], object]


def share(jobs: Iterable[Job], threads: int, watch: Callable[[], object]) -> None:
    """Do jobs, several at a time; each is taken only when a thread is free for it, in order.

    Whatever is raised, by a job, by `jobs`, by `watch` or by a signal's handler, ends it: no further job is begun, and
    it is raised here once those that were begun are over.

    Args:
        jobs: may be as many as there are, and made on the way.
        threads: how many at a time.
        watch: called in the calling thread, every moment and when all are done.
    """
    crew, members = _Crew(jobs), list[threading.Thread]()
    try:
        with Waiting():
            for _ in range(threads):
                member = threading.Thread(target=crew.work)
                member.start()
                members.append(member)
        for member in members:
            while member.is_alive():
                member.join(EVERY)
                watch()
    finally:
        crew.over = True
        for member in members:
            member.join()
    if crew.fault is not None:
        raise crew.fault
    watch()


class _Crew:
    """Jobs, and what the threads that do them have in common.

    Attributes:
        over: no further job is to be begun.
        fault: what ended it.
    """

    def __init__(self, jobs: Iterable[Job]) -> None:
        self._jobs = iter(jobs)
        self._lock = threading.Lock()
        self.over = False
        self.fault: BaseException | None = None

    def work(self) -> None:
        """What each thread does."""
        try:
            while job := self._next():
                job()
        except BaseException as fault:
            self.over = True
            self.fault = self.fault or fault

    def _next(self) -> Job | None:
        with self._lock:
            return None if self.over else next(self._jobs, None)
