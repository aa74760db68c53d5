"""One command from call to exit code: signals, errors, and what is shown of them."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vlconv import ending
from vlconv.job import Job
from vlconv.render import Screen, one_line

if TYPE_CHECKING:
    from vlconv.converters import Observer, Report

EXIT = {"done": 0, "planned": 0, "same": 0, "different": 1, "not comparable": 3}
"""Exit code of each status of a report. 2 is wrong usage, 130 Ctrl-C, 143 a SIGTERM."""


Result = TypeVar("Result")


class Afterwards(Exception):
    """The work came to its end, and then something failed, which is the cause: what was found is told all the same."""

    def __init__(self, report: Report) -> None:
        super().__init__(report.result)
        self.report = report


def run(
    command: str,
    call: Callable[[Observer], Report],
    *,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
    debug: bool,
    verbose: bool = False,
) -> int:
    """Call, show the plan, the progress and the report, and return the exit code."""
    if quiet:  # read by huggingface_hub when it is imported: its bars are its own
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    screen = Screen(as_json=as_json, quiet=quiet, plan=not dry_run, verbose=verbose)

    def told(report: Report) -> int:
        screen.summary(report)
        return EXIT[report.status]

    return carry_out(command, call, told, screen, debug=debug)


def carry_out(
    command: str,
    call: Callable[[Observer], Result],
    told: Callable[[Result], int],
    screen: Screen,
    *,
    debug: bool,
) -> int:
    """Call, show what comes of it, and return the exit code.

    Args:
        command: its name.
        call: what it does.
        told: shows the result, and gives the exit code.
        screen: shows all else.
        debug: show the traceback of an error.
    """
    job, code = Job(), 1
    try:
        try:
            ending.work()
            # A library that prints would spoil the one document on stdout.
            with screen, redirect_stdout(sys.stderr), job.joined():
                result = call(_Watch(screen, job))
        finally:  # if a signal's exception comes in here, no second one will
            ending.over()
        code = told(result)
    except SystemExit:  # rich ends so when nobody reads on: vlconv … | head
        raise
    except BaseException as met:
        report = met.report if isinstance(met, Afterwards) else None
        fault = job.cause(met.__cause__ if report and met.__cause__ else met)
        if debug:
            traceback.print_exception(fault)
        kind, code, what, hint = _explained(fault, debug, ending.came() if fault is met else 0)
        hint = " ".join(filter(None, [hint, *getattr(fault, "__notes__", [])]))
        status = "not comparable" if code == 3 else "interrupted" if code > 128 else "error"
        with suppress(OSError, SystemExit) if ending.came() else nullcontext():  # of a terminal that hung up
            screen.fault(command, kind, what, hint, status, report)
    finally:
        job.end(code)
    return code


class _Watch:
    """The Observer of the command: shows it, and hears what it means for signals."""

    def __init__(self, screen: Screen, job: Job) -> None:
        self._screen, self._job = screen, job

    def planned(self, report: Report) -> None:
        """Show it."""
        self._check()
        self._screen.planned(report)

    def phase(self, phase: str) -> None:
        """Show it, unless that is an upload: huggingface_hub shows that itself, and a signal may end it again."""
        self._check()
        if phase == "uploading":
            ending.work()
            self._screen.rest()
        else:
            self._screen.phase(phase)

    def progress(self, done: int, total: int) -> None:
        """Show it."""
        self._check()
        self._screen.progress(done, total)

    def written(self, place: Path) -> None:
        """The output stands: no signal ends the command any more."""
        ending.stands()

    def _check(self) -> None:
        ending.check()
        self._job.check()


def _explained(fault: BaseException, debug: bool, number: int) -> tuple[str, int, str, str]:
    """Kind, exit code, what happened, and what to do.

    Args:
        fault: that ended the command.
        debug: its traceback is shown.
        number: of the signal that it came from, or 0.
    """
    from vlconv.converters import VlconvError

    kind = type(fault).__name__
    if number := number or (signal.SIGINT if isinstance(fault, KeyboardInterrupt) else 0):
        what = f"{'Ctrl-C' if number == signal.SIGINT else signal.Signals(number).name} ended it"
        return kind, 128 + number, what, "" if hasattr(fault, "__notes__") else "Nothing was left behind."
    if isinstance(fault, VlconvError):
        return kind, fault.exit_code, fault.what, fault.hint
    if isinstance(fault, OSError) and fault.strerror:
        where = "the system reports" if fault.filename is None else one_line(fault.filename)
        hint = "See that files can be read and written there (dmesg tells of failing disks), and try again."
        return kind, 1, f"{where}: {fault.strerror}", hint
    if isinstance(fault, MemoryError):
        return kind, 1, "there is not enough memory", "Try again with fewer --threads."
    hint = (
        "Please report it with the traceback above."
        if debug
        else "This is a fault of vlconv. Please report it with what --debug adds."
    )
    return kind, 1, f"{kind}: {fault}", hint
