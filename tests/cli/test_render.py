"""What is shown: on a terminal, in a log, in a document."""

from __future__ import annotations

import itertools
import json
import os
import pty
import re
import sys
import threading
from typing import Any

import pytest

from vlconv import progress, render
from vlconv.converters import Difference, Fact, Phase, Report
from vlconv.render import Screen, message, one_line, safe
from vlconv.run import run


def report(**changes: Any) -> Report:
    facts = [Fact("source", "/data/run: torch_dist"), Fact("model", "Qwen3-VL dense")]
    return Report(**{"command": "verify", "status": "same", "facts": facts, **changes})


class Terminal:
    """Both streams are a terminal of 80 columns until its text is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._leader, follower = pty.openpty()
        self._stream = os.fdopen(follower, "w")
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, self._stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        self._read: list[bytes] = []
        self._thread = threading.Thread(target=self._drain)
        self._thread.start()

    def _drain(self) -> None:
        try:
            while piece := os.read(self._leader, 4096):
                self._read.append(piece)
        except OSError:  # the other end was closed
            pass

    def text(self) -> str:
        self._stream.close()
        self._thread.join()
        os.close(self._leader)
        return re.sub(r"\x1b\[[0-9;]*m", "", b"".join(self._read).decode())


class TestLog:
    def test_the_plan_goes_to_stderr_and_the_result_to_stdout(self, capsys: pytest.CaptureFixture[str]) -> None:
        screen = Screen()
        screen.planned(report())
        shown = capsys.readouterr()
        assert shown.out == ""
        assert shown.err == "plan\n  source  /data/run: torch_dist\n  model   Qwen3-VL dense\n"
        screen.summary(report())
        shown = capsys.readouterr()
        assert shown.err == ""
        assert shown.out.startswith("verify: same (")
        assert "  model   Qwen3-VL dense\n" in shown.out

    def test_long_lines_stay_whole(self, capsys: pytest.CaptureFixture[str]) -> None:
        path = "/data/" + "x" * 3000
        Screen().summary(report(facts=[Fact("source", path)]))
        assert path in capsys.readouterr().out

    def test_a_dry_run_says_it_once(self, capsys: pytest.CaptureFixture[str]) -> None:
        Screen(plan=False).planned(report())
        assert capsys.readouterr().err == ""

    def test_warnings_are_said_once_and_also_when_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        screen = Screen(quiet=True)
        screen.planned(report(warnings=["3 values are NaN"]))
        screen.summary(report(warnings=["3 values are NaN", "and more"]))
        shown = capsys.readouterr()
        assert shown.err == "warning: 3 values are NaN\nwarning: and more\n"
        assert shown.out == ""

    def test_differences(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = [
            Difference("lm_head.weight", "values", 12345, (3, 4), 0.5),
            Difference("model.norm.weight", "only in A", note="48 rows of padding"),
        ]
        Screen().summary(report(status="different", differences=found))
        shown = capsys.readouterr().out
        for text in (
            "lm_head.weight",
            "12,345",
            "[3, 4]",
            "0.5",
            "only in A",
            "48 rows of padding",
            "verify: different",
        ):
            assert text in shown

    def test_of_many_differences_the_first_are_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        Screen().summary(
            report(status="different", differences=[Difference(f"layer.{n}.weight", "shape") for n in range(60)])
        )
        shown = capsys.readouterr().out
        assert "layer.49.weight" in shown
        assert "layer.50.weight" not in shown
        assert "10 more" in shown


class TestSafe:
    @pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\r", "\u202e", "\u2028", "\udc80", "\x9b"])
    def test_nothing_acts_on_a_terminal(self, capsys: pytest.CaptureFixture[str], hostile: str) -> None:
        name = f"weight{hostile}[bold]x"
        screen = Screen()
        screen.planned(report(facts=[Fact(name, name)], warnings=[name]))
        screen.summary(report(facts=[Fact(name, name)], differences=[Difference(name, "values", note=name)]))
        screen.fault("verify", "CorruptError", name, name, "error")
        shown = capsys.readouterr()
        for text in (shown.out, shown.err):
            assert hostile not in text
            assert "[bold]x" in text

    def test_other_text_stays(self) -> None:
        assert safe("权重 é × –\nx") == "权重 é × –\nx"


class TestProgress:
    def shown(self, screen: Screen) -> None:
        with screen:
            screen.phase("writing")
            screen.progress(0, 10)
            screen.progress(5, 10)

    @pytest.fixture(autouse=True)
    def slow(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hours between two looks at the clock."""
        now = itertools.count(0, 3600)
        monkeypatch.setattr(progress, "monotonic", lambda: float(next(now)))

    @pytest.mark.parametrize("as_json", [False, True])
    def test_goes_to_stderr(self, capsys: pytest.CaptureFixture[str], as_json: bool) -> None:
        self.shown(Screen(as_json=as_json))
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("writing: 0 bytes of 10 bytes (0 %)")

    def test_of_a_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        def call(observer: Any) -> Report:
            observer.phase(Phase.BRINGING_TO_DISK)
            observer.progress(0, 10)
            observer.progress(5, 10)
            return report()

        assert run("verify", call, dry_run=False, as_json=False, quiet=False, debug=False) == 0
        assert "bringing to disk: 5 bytes of 10 bytes (50 %)" in capsys.readouterr().err

    def test_not_when_quiet(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.shown(Screen(quiet=True))
        assert capsys.readouterr() == ("", "")


class TestDocument:
    def test_is_json_whatever_the_values(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = [Difference("a", "values", 1, (0,), float("nan")), Difference("b", "values", 1, (0,), float("inf"))]
        Screen(as_json=True).summary(
            report(status="different", differences=found, data={"path": os.curdir, "by_layer": {3: float("-inf")}})
        )
        shown = capsys.readouterr().out
        assert "NaN" not in shown
        document = json.loads(shown)
        assert [d["max_abs"] for d in document["differences"]] == ["nan", "inf"]
        assert document["by_layer"] == {"3": "-inf"}

    def test_of_a_fault(self, capsys: pytest.CaptureFixture[str]) -> None:
        Screen(as_json=True).fault("verify", "CorruptError", "x is damaged", "fetch it again", "error")
        document = json.loads(capsys.readouterr().out)
        assert document == {
            "command": "verify",
            "status": "error",
            "error": {"type": "CorruptError", "what": "x is damaged", "hint": "fetch it again"},
        }


class TestTerminal:
    def test_what_the_plan_said_is_not_said_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        screen = Screen()
        screen.planned(report())
        screen.summary(report(facts=[*report().facts, Fact("result", "750 tensors are equal")]))
        shown = terminal.text()
        assert shown.count("Qwen3-VL dense") == 1
        assert "750 tensors are equal" in shown
        assert "╭─ plan ─" in shown

    def test_a_bar_comes_and_goes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        with Screen() as screen:
            screen.phase("reading back")
            screen.progress(0, 4 * 10**9)
            screen.progress(4 * 10**9, 4 * 10**9)
        text = terminal.text()
        assert "reading back" in text and "4.0 GB of 4.0 GB (100 %)" in text
        assert text.endswith("\x1b[2K")  # the line is empty again

    @pytest.mark.parametrize("phase", Phase)
    def test_its_words_fit(self, monkeypatch: pytest.MonkeyPatch, phase: Phase) -> None:
        """A large model on a terminal of 80 columns."""
        terminal, now = Terminal(monkeypatch), iter([0.0, 0.0, 0.0, 600.0])
        monkeypatch.setattr(progress, "monotonic", lambda: next(now))
        with Screen() as screen:
            screen.phase(phase)
            screen.progress(0, 456 * 10**9)
            screen.progress(123 * 10**9, 456 * 10**9)
        text = terminal.text()
        assert phase in text and "123.0 GB of 456.0 GB (26 %), 205.0 MB/s, 27 min 4 s left" in text

    def test_there_is_none_when_quiet(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        with Screen(quiet=True) as screen:
            screen.phase("writing")
            screen.progress(1, 2)
        assert terminal.text() == ""

    def test_an_error_has_a_panel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        Screen().fault("verify", "CorruptError", "x is damaged", "fetch it again", "error")
        assert "─ error ─" in terminal.text()


def test_every_status_has_a_word_and_a_code() -> None:
    from vlconv import run

    assert set(render.WORDS) == set(run.EXIT)


@pytest.mark.parametrize(
    "name", ["a\nerror: b", "a\nwarning: b\n", "y" * 10**6, "\x1b" * 10**6, "\n" * 10**6], ids="nwyen"
)
def test_whatever_is_said_stays_one_message(capsys: pytest.CaptureFixture[str], name: str) -> None:
    """Even where a name came through unseen."""
    screen = Screen()
    screen.fault("mcore2hf", "CorruptError", f"{name} is bad", f"do not {name}", "error")
    screen.planned(Report("mcore2hf", "planned", [Fact("source", name)], [f"{name} is strange"]))
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        next(line for line in lines if line.startswith("error: ")),
        next(line for line in lines if line.startswith("warning: ")),
        "plan",
    ]
    assert len(text) < 60_000
    assert "\x1b" not in text
    assert len(message(name).splitlines()) <= 61
    assert "\n" not in one_line(name)
    assert len(one_line(name)) < 1000
