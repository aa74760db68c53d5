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

from vlconv import __version__, progress, render
from vlconv.converters import Difference, Fact, Phase, Report
from vlconv.converters.report import Step
from vlconv.render import Screen, message, one_line, safe
from vlconv.run import run


def report(**changes: Any) -> Report:
    facts = [Fact("source", "/data/run: torch_dist"), Fact("model", "Qwen3-VL dense")]
    return Report(**{"command": "verify", "status": "same", "facts": facts, **changes})


class Terminal:
    """Both streams are a terminal of 80 columns until its text is asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, keep: bool = False) -> None:
        """Args: keep: colours and the like stay in its text."""
        self._keep = keep
        self._leader, follower = pty.openpty()
        self._stream = os.fdopen(follower, "w")
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, self._stream)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        monkeypatch.delenv("CI", raising=False)
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
        text = b"".join(self._read).decode()
        return text if self._keep else re.sub(r"\x1b\[[0-9;]*m", "", text)


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

    def test_the_result_comes_first_and_what_is_missing_last(self, capsys: pytest.CaptureFixture[str]) -> None:
        last = "vLLM cannot load out"
        done = report(
            status="done",
            result="out: 625 tensors",
            warnings=["3 values are NaN", last],
            steps=[Step("serve", "vllm serve out"), Step("verify", "vlconv verify run out")],
            last=last,
        )
        Screen().summary(done)
        shown = capsys.readouterr()
        first, *rest = shown.out.splitlines()
        assert first.startswith("out: 625 tensors (")
        assert rest == [
            "  source  /data/run: torch_dist",
            "  model   Qwen3-VL dense",
            "  to serve   vllm serve out",
            "  to verify  vlconv verify run out",
            last,
        ]
        assert shown.err == "warning: 3 values are NaN\n"

    @pytest.mark.parametrize("how", [{"quiet": True}, {"as_json": True}])
    def test_where_nothing_else_is_said_the_last_is_a_warning(
        self, capsys: pytest.CaptureFixture[str], how: dict[str, bool]
    ) -> None:
        screen, done = Screen(**how), report(status="done", warnings=["no tokenizer"], last="no tokenizer")
        screen.planned(done)
        screen.summary(done)
        assert capsys.readouterr().err.count("warning: no tokenizer\n") == 1

    def test_a_dry_run_has_no_next_step(self, capsys: pytest.CaptureFixture[str]) -> None:
        Screen().summary(report(status="planned", result="out: 625 tensors", steps=[Step("serve", "vllm serve out")]))
        shown = capsys.readouterr().out
        assert shown.startswith("dry run, nothing was written: out: 625 tensors (")
        assert "vllm" not in shown

    def test_the_plan_says_what_will_be(self, capsys: pytest.CaptureFixture[str]) -> None:
        Screen().planned(report(result="out: 625 tensors"))
        assert capsys.readouterr().err.startswith("plan: out: 625 tensors\n  source ")

    @pytest.mark.parametrize(
        ("verbose", "lines"), [(False, ["  model  2B"]), (True, ["  model   a long story", "  proven  all of it"])]
    )
    def test_facts_are_brief_unless_all_is_asked_for(
        self, capsys: pytest.CaptureFixture[str], verbose: bool, lines: list[str]
    ) -> None:
        facts = [Fact("model", "a long story", brief="2B"), Fact("proven", "all of it", brief="")]
        Screen(verbose=verbose).summary(report(facts=facts))
        assert capsys.readouterr().out.splitlines()[1:] == lines

    def test_quiet_says_one_line_of_a_difference(self, capsys: pytest.CaptureFixture[str]) -> None:
        screen = Screen(quiet=True)
        screen.summary(
            report(status="different", result="different: 1 of 2 tensors", differences=[Difference("a", "shape")])
        )
        (line,) = capsys.readouterr().out.splitlines()
        assert line.startswith("different: 1 of 2 tensors (")

    def test_a_pipe_gets_a_line_of_each_difference(self, capsys: pytest.CaptureFixture[str]) -> None:
        found = [
            *(Difference(f"small.{n}", "values", 1, (0,), 1e-9) for n in range(60)),
            Difference("lm_head.weight", "values", 12345, (3, 4), 0.5, nan=7),
            Difference("model.\tnorm", "only in A", note="48 rows of padding"),
        ]
        Screen().summary(report(status="different", facts=[], differences=found))
        first, *lines = capsys.readouterr().out.splitlines()
        assert "\t" not in first
        assert lines[:3] == [
            "model.\\tnorm\tonly in A\t\t\t\t\t48 rows of padding",
            "lm_head.weight\tvalues\t12345\t[3, 4]\t0.5\t7\t",
            "small.0\tvalues\t1\t[0]\t1e-09\t\t",
        ]
        assert len(lines) == 62


class TestSafe:
    @pytest.mark.parametrize("hostile", ["\x1b[2J", "\x07", "\r", "\u202e", "\u2028", "\udc80", "\x9b"])
    def test_nothing_acts_on_a_terminal(self, capsys: pytest.CaptureFixture[str], hostile: str) -> None:
        name = f"weight{hostile}[bold]x"
        screen = Screen()
        screen.planned(report(facts=[Fact(name, name)], warnings=[name]))
        screen.summary(
            report(
                facts=[Fact(name, name), Fact("model", "", brief=name)],
                differences=[Difference(name, "values", note=name)],
                result=name,
                steps=[Step("verify", name)],
                warnings=[name],
                last=name,
            )
        )
        screen.fault("verify", "CorruptError", name, name, "error")
        shown = capsys.readouterr()
        for text in (shown.out, shown.err):
            assert hostile not in text
            assert "[bold]x" in text

    def test_nothing_acts_in_a_table(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        name = "weight\x07\u202e[bold]x"
        Screen().summary(report(status="different", differences=[Difference(name, "values", note=name)]))
        text = terminal.text()
        assert not {"\x07", "\u202e"} & set(text) and "weight\\x07\\u202e[bold]x" in text

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
            "vlconv": __version__,
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
        assert shown.startswith("plan\r\n")

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

    def test_a_name_stays_in_the_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        long = "model.language_model.layers.17.mlp.experts.gate_up_proj.and.so.on.and.so.on.weight"
        found = [Difference(long, "values", 12345, (3, 4), 0.031, nan=2), Difference("model.norm.weight", "only in A")]
        Screen().summary(report(status="different", facts=[], differences=found))
        _, first, second, *_ = terminal.text().splitlines()
        assert first.split() == ["model.norm.weight", "only", "in", "A"]
        assert second.startswith("  …layers.17.…") and ".weight  12,345 elements, 2 of them NaN" in second
        assert len(second) <= 80

    @pytest.mark.parametrize(("verbose", "rows"), [(False, 20), (True, 60)])
    def test_of_many_differences_the_worst_are_shown(
        self, monkeypatch: pytest.MonkeyPatch, verbose: bool, rows: int
    ) -> None:
        terminal = Terminal(monkeypatch)
        found = [Difference(f"layer.{n}.weight", "values", 1, (), float(n)) for n in range(60)]
        Screen(verbose=verbose).summary(report(status="different", facts=[], differences=found))
        text = terminal.text()
        assert re.findall(r"layer\.(\d+)\.", text) == [str(n) for n in range(59, 59 - rows, -1)]
        assert ("40 more; --verbose" in text) is not verbose

    @pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("CI", "true")])
    def test_where_nothing_can_be_drawn_there_is_no_bar(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        terminal, now = Terminal(monkeypatch), itertools.count(0, 3600)
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(progress, "monotonic", lambda: float(next(now)))
        with Screen() as screen:
            screen.phase("writing")
            screen.progress(5, 10)
        text = terminal.text()
        assert text.startswith("writing: 5 bytes of 10 bytes (50 %)")
        assert text.count("\n") == 1 and "\x1b" not in text

    def test_an_error_has_a_panel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        Screen().fault("verify", "CorruptError", "x is damaged", "fetch it again", "error")
        assert "─ error ─" in terminal.text()

    def test_a_dumb_one_has_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        terminal = Terminal(monkeypatch)
        monkeypatch.setenv("TERM", "dumb")
        Screen().fault("verify", "CorruptError", "x is damaged", "fetch it again", "error")
        assert terminal.text().splitlines() == ["error: x is damaged", "  fetch it again"]


class TestColours:
    """Colours are what the environment says; what is written, and in how many lines, is what it is without."""

    def shown(self, capsys: pytest.CaptureFixture[str]) -> str:
        screen = Screen()
        screen.phase("writing")
        found = report(status="different", warnings=["w"], differences=[Difference("a", "shape")])
        screen.planned(found)
        screen.summary(found)
        screen.fault("verify", "CorruptError", "x is damaged", "", "error")
        shown = capsys.readouterr()
        return shown.out + shown.err

    def test_forced_on_a_pipe(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("FORCE_COLOR", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        plain = self.shown(capsys)
        assert "\x1b" not in plain
        monkeypatch.setenv("FORCE_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm-256color")
        coloured = self.shown(capsys)
        assert "\x1b[33mwarning: \x1b[0m" in coloured
        assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain

    def test_none_on_a_terminal(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NO_COLOR", "1")
        terminal = Terminal(monkeypatch, keep=True)
        Screen().summary(report(status="different", result="different: 1 of 2 tensors"))
        text = terminal.text()
        assert "different: 1 of 2 tensors" in text
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]m", text)


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
