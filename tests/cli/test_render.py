"""What is shown: on a terminal, in a log, in a document."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import sys
import threading
from typing import Any

import pytest
from rich.console import Console

from vlconv import progress, render
from vlconv.converters import Difference, Fact, Report
from vlconv.progress import Lines, duration
from vlconv.render import Screen, message, one_line, safe


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
            for done in (0, 10**9, 0, 4 * 10**9):  # a second pass begins in between
                screen.progress(done, 4 * 10**9)
        assert "4.0/4.0 GB" in terminal.text()

    def test_an_error_has_a_panel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        Screen().fault("verify", "CorruptError", "x is damaged", "fetch it again", "error")
        assert "─ error ─" in terminal.text()


class TestLines:
    def test_a_line_every_few_seconds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = iter([100.0, 102.0, 105.0, 107.0, 110.0])
        monkeypatch.setattr(progress, "monotonic", lambda: next(now))
        out = io.StringIO()
        lines = Lines(Console(file=out, width=200))
        for done in (0, 2, 5, 7, 10):
            lines.show(done * 10**9, 20 * 10**9)
        assert out.getvalue().splitlines() == [
            "5.0 GB of 20.0 GB (25 %), 1.0 GB/s, 15 s left",
            "10.0 GB of 20.0 GB (50 %), 1.0 GB/s, 10 s left",
        ]

    def test_a_second_pass_has_its_own_speed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        now = iter([0.0, 4.0, 4.5, 10.0])
        monkeypatch.setattr(progress, "monotonic", lambda: next(now))
        out = io.StringIO()
        lines = Lines(Console(file=out, width=200))
        for done in (0, 9, 0, 11):
            lines.show(done * 10**9, 20 * 10**9)
        assert out.getvalue().splitlines() == ["11.0 GB of 20.0 GB (55 %), 2.0 GB/s, 4.5 s left"]

    def test_nothing_done_says_nothing_of_time(self) -> None:
        assert progress.line(0, 10, 0.0) == "0 bytes of 10 bytes (0 %), 0 bytes/s"

    @pytest.mark.parametrize(
        ("seconds", "text"), [(0.44, "0.4 s"), (28.2, "28 s"), (185, "3 min 5 s"), (7620, "2 h 7 min")]
    )
    def test_durations(self, seconds: float, text: str) -> None:
        assert duration(seconds) == text


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
