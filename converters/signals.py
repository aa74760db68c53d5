"""Signals that wait: for the few moments in which an exception would leave something that nobody clears away.

A handler may raise, as Python's own does at Ctrl-C, wherever the main thread happens to be. That is how a run of hours
ends within a second; and between two steps that belong together it must not happen.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""The signals that ask a program to end."""

Handler = Callable[[int, FrameType | None], object]


class Waiting:
    """Lets those signals wait until the block is over; none is lost.

        with Waiting():
            ...  # two steps that belong together

    They are then given to the handlers that were there, which are in force again. Only handlers of Python are held
    back. In a thread that is not the main one this does nothing: no handler ever interrupts it. (To block the signals
    would not do: the system gives those of a process to any thread, and Python then calls the handler all the same.)
    """

    def __init__(self) -> None:
        self._handlers: dict[signal.Signals, Handler] = {}
        self._came: list[int] = []

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        try:
            for number in NUMBERS:
                if callable(handler := signal.getsignal(number)):
                    self._handlers[number] = handler
                    signal.signal(number, self._wait)
        except BaseException:  # of a handler that was still in force
            self._put_back()
            raise

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._put_back()
        except BaseException:  # of a handler that was in force again, before the others were
            self._put_back()
            raise
        finally:
            _deliver(self._came)

    def _wait(self, number: int, frame: FrameType | None) -> None:
        if number not in self._came:
            self._came.append(number)

    def _put_back(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)


def _deliver(numbers: list[int]) -> None:
    """Give signals to their handlers, the next one also where the first raises."""
    if numbers:
        try:
            signal.raise_signal(numbers[0])
        finally:
            _deliver(numbers[1:])
