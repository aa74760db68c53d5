"""How signals end the command line, from its first line of code to the last one of the interpreter.

    while nothing is at work    at once, without a word of Python's
    while a command works       by an exception, so that what was begun is cleared away
    once its result stands      not at all any more: done is done

What comes before our first line, in the few milliseconds in which Python itself starts, is Python's: nothing here can
change what it does then. Light, because it is loaded before all else.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Ended(BaseException):
    """A signal asks for the end. Not an Exception, so that only clearing away stands in its way."""


class _Ending:
    """What a signal does now.

    Attributes:
        number: of the signal that ends the command; 0: none came.
        works: a command is at work.
        over: its result stands, or its fault.
        begun: the process is ours from start to end, and so are its signals.
    """

    def __init__(self) -> None:
        self.number = 0
        self.works = self.over = self.begun = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.over or self.number:  # one is enough: a second one must not stop the clearing away
            return
        if not self.works:
            os._exit(128 + number)
        self.number = number
        raise self.exception()

    def exception(self) -> BaseException:
        return KeyboardInterrupt() if self.number == signal.SIGINT else Ended(self.number)


_ending = _Ending()


def begin() -> None:
    """Take the process' signals. One that is ignored, as nohup and shells' background jobs do it, stays so."""
    _ending.begun = True
    for number in NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _ending.handle)
    sys.unraisablehook = _unraisable


def work() -> None:
    """From now on a signal raises KeyboardInterrupt or Ended, once, in the main thread."""
    _ending.number, _ending.over, _ending.works = 0, False, True


def check() -> None:
    """Raise it again where it was lost: Python drops an exception that comes while an object is freed."""
    if _ending.number and not _ending.over:
        raise _ending.exception()


def stands() -> None:
    """From now on signals are ignored. For the moment in which a signal may come between any two steps."""
    _ending.over = True


def over() -> None:
    """From now on signals are ignored, to the end of the interpreter: it would take handlers of Python away."""
    _ending.over = True
    if _ending.begun:
        for number in NUMBERS:
            signal.signal(number, signal.SIG_IGN)


def came() -> int:
    """The number of the signal that ended the command; 0: none did."""
    return _ending.number


def _unraisable(lost: UnraisableHookArgs) -> None:
    if not issubclass(lost.exc_type, (KeyboardInterrupt, Ended)):
        sys.__unraisablehook__(lost)
