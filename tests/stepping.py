"""A signal at a chosen step of the interpreter, so that tests meet moments that no sleeping would."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from types import FrameType


class Steps:
    """Counts the steps at which Python calls the handlers of signals: where a function begins, and after a call of one
    that is written in C.

    Args:
        at: number of the step at which `act` is called; 0: never.
        act: what to do there.
    """

    def __init__(self, at: int = 0, act: Callable[[], object] = lambda: None) -> None:
        self.at, self.act, self.seen = at, act, 0

    def __call__(self, run: Callable[[], object]) -> int:
        """Run it, and give the number of its steps."""
        try:
            self.begin()
            run()
            sys.setprofile(None)
        except BaseException:
            sys.setprofile(None)
            raise
        return self.seen

    def begin(self) -> None:
        """Count from here on."""
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, arg: object) -> None:
        if event in ("call", "c_return", "c_exception"):
            self.seen += 1
            if self.seen == self.at:
                sys.setprofile(None)
                self.act()


def signal_at(number: signal.Signals, at: int, run: Callable[[], object]) -> bool:
    """Run, and raise a signal at a step; whether there are so many."""
    steps = Steps(at, lambda: signal.raise_signal(number))
    steps(run)
    return steps.seen >= at
