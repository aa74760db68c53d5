"""The tensors that differ, looked at several at a time, and told of."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from ...crew import share
from ...report import Observer, Phase, Silent, tell_phase

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Passes:
    """How tensors are looked at, one pass for each question that is asked of them.

    Attributes:
        threads: how many at a time.
        observer: told of the bytes, from none to all in every pass.
    """

    threads: int = 1
    observer: Observer = field(default_factory=Silent)

    def over(
        self, items: Sequence[Item], nbytes: Callable[[Item], int], look: Callable[[Item], Result]
    ) -> list[tuple[Item, Result]]:
        """What is seen of each, in the order of the items.

        Args:
            items: tensors, or lots of them.
            nbytes: of one.
            look: called in several threads.
        """
        if not items:
            return []
        tell_phase(self.observer, Phase.EXPLAINING)
        seen: dict[int, Result] = {}
        done = _Count()

        def one(at: int) -> None:
            seen[at] = look(items[at])
            done.add(nbytes(items[at]))

        total = sum(map(nbytes, items))
        share(
            (partial(one, at) for at in range(len(items))),
            self.threads,
            lambda: self.observer.progress(done.nbytes, total),
        )
        return [(item, seen[at]) for at, item in enumerate(items)]


class _Count:
    """Bytes that several threads count."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.nbytes = 0

    def add(self, nbytes: int) -> None:
        with self._lock:
            self.nbytes += nbytes
