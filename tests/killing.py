"""The command line in a process of its own that a signal meets at a chosen step, and what is to hold afterwards.

The process is a fork of this one, so that it costs a tenth of what a new interpreter does, and a step is one of the
interpreter (stepping.py), so that it meets what lies between two calls as often as hours of writing.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from stepping import Steps
from typer.testing import CliRunner

from vlconv import __main__, app
from vlconv.converters.output.staging.journal import Journal

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129, signal.SIGKILL: -9}
TAG = "VLCONV_TEST_RUN"
SECONDS = 120
"""After which a run that hangs is ended by SIGALRM, which no test expects."""

_numbers = count()


class Ended(NamedTuple):
    """A run that is over.

    Attributes:
        code: exit code; negative: the signal that ended it.
        said: what it printed to stdout and stderr.
        steps: of its interpreter; 0 where it did not come to its end.
    """

    code: int
    said: str
    steps: int


def run(
    args: Sequence[object],
    number: signal.Signals = signal.SIGKILL,
    at: int = 0,
    *,
    prepare: Callable[[Steps], object] = lambda steps: steps.begin(),
) -> Ended:
    """Run `vlconv args…`.

    Args:
        args: of the command line.
        number: the signal.
        at: the step at which it comes; 0: never.
        prepare: called in the new process: when its steps begin to be counted, and what else is otherwise there.
    """
    tag = f"{os.getpid()}-{next(_numbers)}"
    (said, says), (counted, counts) = os.pipe(), os.pipe()  # no files: a test may forbid to write any
    process = os.fork()
    if process == 0:
        _child([str(arg) for arg in args], Steps(at, lambda: _send(number)), prepare, tag, says, counts)
    os.close(says)
    os.close(counts)
    with open(said, encoding="utf-8") as words, open(counted) as steps:
        text, seen = words.read(), int(steps.read() or 0)
    ended = Ended(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), text, seen)
    assert not (left := _left(tag)), left
    return ended


def warm() -> None:
    """Load here what every run would load again."""
    assert CliRunner().invoke(app.app, ["mcore2hf", "", ""]).exit_code == 1


def fair(ended: Ended, number: signal.Signals) -> bool:
    """Whether the run was ended by the signal: if so with its exit code, else with 0, and never with a traceback."""
    assert ended.code in (0, CODES[number]), ended
    assert "Traceback" not in ended.said and "Exception" not in ended.said, ended.said
    return ended.code != 0


def tree(folder: Path) -> dict[str, str]:
    """What a directory holds: every file by its bytes, every link by where it leads."""
    return {str(path.relative_to(folder)): _content(path) for path in sorted(folder.rglob("*"))}


def _content(path: Path) -> str:
    if path.is_symlink():
        return f"-> {path.readlink()}"
    return "directory" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()


def _send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number) if number == signal.SIGKILL else signal.raise_signal(number)


def _child(
    args: list[str], steps: Steps, prepare: Callable[[Steps], object], tag: str, said: int, counted: int
) -> None:
    """The new process."""
    code = 1
    try:
        for number in (1, 2):
            os.dup2(said, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
        sys.argv, os.environ[TAG] = ["vlconv", *args], tag
        signal.alarm(SECONDS)
        os.fsync = lambda fd: None  # a kill leaves what the system was told; the disk would only take time
        prepare(steps)
        __main__.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        os.write(counted, str(steps.seen).encode())
        os._exit(code)


def _left(tag: str) -> list[str]:
    """Processes of that run that are still there a moment after its end."""
    end = time.monotonic() + 5
    while left := [*_tagged(f"{TAG}={tag}".encode())]:
        if time.monotonic() > end:
            return left
        time.sleep(0.005)
    return []


def _tagged(tag: bytes) -> Iterator[str]:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if tag in (process / "environ").read_bytes().split(b"\0"):
                yield (process / "cmdline").read_text()
        except OSError:  # gone meanwhile, or somebody else's
            continue


def killed(call: Callable[[], object], after: int) -> None:
    """Run in a child that is killed when so many files are finished."""
    child = os.fork()
    if child == 0:
        kill_when_finished(after)
        try:
            call()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL


def kill_when_finished(files: int) -> None:
    """This process is killed as soon as it has noted so many files as finished."""
    note, left = Journal.note, files

    def noting(self: Journal, *args: Any) -> None:
        nonlocal left
        note(self, *args)
        left -= 1
        if not left:
            os.kill(os.getpid(), signal.SIGKILL)

    Journal.note = noting  # type: ignore[method-assign]
