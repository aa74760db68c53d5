"""A signal while the command line is loaded, when it is done, and when it is gone: an exit code, and no traceback."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import run, warm
from typer.testing import CliRunner

from vlconv import __version__, converters, ending
from vlconv.app import app

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
NUMBERS = [pytest.param(number, id=number.name) for number in CODES]


def python(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run code in a new interpreter; `main` is the console script's."""
    start = "import os, signal, sys\nfrom vlconv import ending\nfrom vlconv.__main__ import main\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", start + textwrap.dedent(code), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


LOADED = """
from stepping import Steps

def loaded(number, at):
    steps, begin, sys.argv = Steps(at, lambda: signal.raise_signal(number)), ending.begin, ["vlconv", "--version"]
    ending.begin = lambda: (begin(), steps.begin())
    try:
        main()
    except SystemExit as end:
        return end.code
    finally:
        sys.setprofile(None)
        if not at:
            print(steps.seen, flush=True)  # os._exit writes no buffer

for pair in sys.argv[1:]:
    process = os.fork()
    if not process:
        os._exit(loaded(*map(int, pair.split(":"))))
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
"""The command line is loaded anew in forks of an interpreter that has not loaded it: by signal and step."""


@pytest.mark.parametrize("times", [2, pytest.param(30, marks=pytest.mark.slow)])
def test_while_it_is_loaded(times: int) -> None:
    """Python's own handler would show the line of typer's that it met."""
    steps = int(python(LOADED, "0:0").stdout.split()[-2])
    assert steps > 100_000
    chosen = random.Random(times)
    numbers = [number for number in CODES for _ in range(times)]
    done = python(LOADED, *(f"{number}:{chosen.randint(1, steps)}" for number in numbers))
    assert (done.returncode, done.stderr) == (0, "")
    codes = [int(line) for line in done.stdout.splitlines() if not line.startswith("vlconv")]
    wrong = [(n, c) for n, c in zip(numbers, codes, strict=True) if c not in (CODES[n], 0)]
    assert not wrong and codes.count(0) <= len(codes) // 4


@pytest.mark.parametrize("number", NUMBERS[:2])
class TestTheVeryLast:
    """What comes after the last word changes nothing."""

    def test_while_the_interpreter_ends(self, number: signal.Signals) -> None:
        code = """
        import atexit
        atexit.register(signal.raise_signal, int(sys.argv.pop()))
        sys.argv[1:] = ["--version"]
        main()
        """
        done = python(code, int(number))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"vlconv {__version__}\n", "")

    def test_when_it_has_taken_the_handlers_away(self, number: signal.Signals) -> None:
        """Python ends its own care for signals before it clears its modules."""
        code = """
        class Last:
            def __del__(self, kill=os.kill, process=os.getpid(), number=int(sys.argv.pop())):
                kill(process, number)
        sys.last = Last()
        sys.argv[1:] = ["--version"]
        main()
        """
        done = python(code, int(number))
        assert (done.returncode, done.stdout, done.stderr) == (0, f"vlconv {__version__}\n", "")


class Freed:
    def __init__(self, number: signal.Signals) -> None:
        self._number = number

    def __del__(self) -> None:
        signal.raise_signal(self._number)


@pytest.fixture(scope="module")
def loaded() -> None:
    warm()


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.usefixtures("loaded")
class TestAtWork:
    def ended(self, work: Callable[[converters.Observer], object]) -> tuple[int, str]:
        """Exit code and words of a command that does this work."""

        def mcore2hf(source: Path, target: Path, options: object, observer: converters.Observer) -> converters.Report:
            work(observer)
            return converters.Report("mcore2hf", "done")

        def prepare(steps: object) -> None:
            converters.mcore2hf = mcore2hf  # type: ignore[assignment]

        ended = run(["mcore2hf", "m", "h"], prepare=prepare)
        assert "Traceback" not in ended.said and "ignored" not in ended.said
        return ended.code, ended.said

    def test_it_ends_the_work(self, number: signal.Signals) -> None:
        code, said = self.ended(lambda observer: signal.raise_signal(number))
        assert code == CODES[number] and said.startswith("interrupted: ") and "Nothing was left behind." in said

    def test_when_the_output_stands(self, number: signal.Signals) -> None:
        def work(observer: Any) -> None:
            observer.written("h")
            signal.raise_signal(number)

        code, said = self.ended(work)
        assert (code, said[:14]) == (0, "mcore2hf: done")

    def test_what_was_left_is_said(self, number: signal.Signals) -> None:
        def work(observer: object) -> None:
            try:
                signal.raise_signal(number)
            except BaseException as fault:
                fault.add_note("h.partial was left behind.")
                raise

        code, said = self.ended(work)
        assert code == CODES[number] and "h.partial was left behind." in said and "Nothing" not in said

    def test_another_fault_on_the_way_out(self, number: signal.Signals) -> None:
        """Of a library that was interrupted where it did not expect it, or of a terminal that hung up."""

        def work(observer: object) -> None:
            try:
                signal.raise_signal(number)
            finally:
                raise RuntimeError("release unlocked lock")

        code, said = self.ended(work)
        assert code == CODES[number] and said.startswith("interrupted: ")

    def test_a_second_one_does_not_stop_the_clearing_away(self, number: signal.Signals) -> None:
        def work(observer: object) -> None:
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(number)
                print("cleared")

        code, said = self.ended(work)
        assert code == CODES[number] and said.startswith("cleared\n")

    @pytest.mark.parametrize("step", [("progress", 1, 2), ("phase", "writing")])
    def test_one_that_python_drops_is_met_at_the_next_step(self, number: signal.Signals, step: Any) -> None:
        """An exception in a destructor goes nowhere."""

        def work(observer: converters.Observer) -> None:
            Freed(number)
            print("on")
            getattr(observer, step[0])(*step[1:])
            print("too far")

        code, said = self.ended(work)
        assert code == CODES[number] and said.startswith("on\ninterrupted: ")


@pytest.mark.parametrize("number", NUMBERS[:1])
def test_one_that_is_ignored_stays_ignored(number: signal.Signals) -> None:
    """nohup, and the background jobs of a shell's script."""
    code = """
    number = int(sys.argv.pop())
    signal.signal(number, signal.SIG_IGN)
    sys.argv[1:] = ["--version"]
    begin, ending.begin = ending.begin, lambda: (begin(), signal.raise_signal(number))
    main()
    """
    assert python(code, int(number)).stdout == f"vlconv {__version__}\n"


def test_inside_another_program_handlers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    """As typer's CliRunner calls it, and whoever imports the app."""

    def verify(*args: Any) -> converters.Report:
        args[-1].written("out")
        return converters.Report("verify", "same")

    monkeypatch.setattr(converters, "verify", verify)
    before, hook = [signal.getsignal(n) for n in CODES], sys.unraisablehook
    assert CliRunner().invoke(app, ["verify", "a"]).exit_code == 0
    assert [signal.getsignal(n) for n in CODES] == before and sys.unraisablehook is hook
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert ending.came() == 0
