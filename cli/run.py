"""One command from call to exit code: signals, errors, and what is shown of them."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from types import FrameType
from typing import TYPE_CHECKING

from vlconv.render import Screen

if TYPE_CHECKING:
    from vlconv.converters import Observer, Report

EXIT = {"done": 0, "planned": 0, "same": 0, "different": 1, "not comparable": 3}
"""Exit code of each status of a report. 2 is wrong usage, 130 Ctrl-C, 143 a SIGTERM."""


class Ended(BaseException):
    """A signal asks for the end. Not an Exception, so that only cleaning up stands in its way."""

    def __init__(self, number: int) -> None:
        self.number = number


def run(
    command: str, call: Callable[[Observer], Report], *, dry_run: bool, as_json: bool, quiet: bool, debug: bool
) -> int:
    """Call, show what comes of it, and return the exit code."""
    screen = Screen(as_json=as_json, quiet=quiet, plan=not dry_run)
    try:
        # A library that prints would spoil the one document on stdout.
        with _signals(), screen, redirect_stdout(sys.stderr):
            report = call(screen)
        screen.summary(report)
        return EXIT[report.status]
    except SystemExit:  # rich ends so when nobody reads on: vlconv … | head
        raise
    except BaseException as fault:
        if debug:
            traceback.print_exc()
        kind, code, what, hint = _explained(fault, debug)
        screen.fault(
            command, kind, what, hint, "not comparable" if code == 3 else "interrupted" if code > 128 else "error"
        )
        return code


def _explained(fault: BaseException, debug: bool) -> tuple[str, int, str, str]:
    """Kind, exit code, what happened, and what to do."""
    from vlconv.converters import VlconvError

    kind = type(fault).__name__
    if isinstance(fault, VlconvError):
        return kind, fault.exit_code, fault.what, fault.hint
    if isinstance(fault, KeyboardInterrupt):
        return kind, 128 + signal.SIGINT, "interrupted", "Nothing was left behind."
    if isinstance(fault, Ended):
        return kind, 128 + fault.number, f"ended by {signal.Signals(fault.number).name}", "Nothing was left behind."
    if isinstance(fault, OSError) and fault.filename is not None:
        return (
            kind,
            1,
            f"{fault.filename}: {fault.strerror}",
            "See that the file can be read or written there, and try again.",
        )
    if isinstance(fault, MemoryError):
        return kind, 1, "there is not enough memory", "Try again with fewer --threads."
    hint = (
        "Please report it with the traceback above."
        if debug
        else "This is a fault of vlconv. Please report it with what --debug adds."
    )
    return kind, 1, f"{kind}: {fault}", hint


@contextmanager
def _signals() -> Iterator[None]:
    """Turn signals into an exception of the main thread, so that `.partial` is removed.

    SIGTERM, and a hang-up unless nohup is in force.
    """

    def end(number: int, frame: FrameType | None) -> None:
        raise Ended(number)

    numbers = [n for n in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    before = [signal.signal(n, end) for n in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
