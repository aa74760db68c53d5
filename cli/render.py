"""What people and programs see: the plan and the progress on stderr, the result on stdout.

The only place that prints.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Self

from rich.panel import Panel
from rich.text import Text

from vlconv import __version__, facts, findings, heat
from vlconv.differences import ROWS, lines, table, worst_first
from vlconv.progress import Bar, Lines, Meter, duration
from vlconv.streams import console, draws, on_terminal, same_file
from vlconv.text import message, one_line, safe

if TYPE_CHECKING:
    from vlconv.converters import Difference, Finding, Report

WORDS = {
    "done": ("done", "green"),
    "planned": ("dry run, nothing was written", "cyan"),
    "same": ("same", "green"),
    "different": ("different", "red"),
    "not comparable": ("not comparable", "yellow"),
}

__all__ = ["WORDS", "Screen", "message", "one_line", "print_lines", "safe"]


class Screen:
    """Shows one command, as its Observer would have it.

    Args:
        as_json: the result is one JSON document.
        quiet: say nothing but warnings and errors.
        plan: show the plan before the work; a dry run's result says the same.
        verbose: show all facts whole, and every difference.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, plan: bool = True, verbose: bool = False) -> None:
        self._out, self._err = console(sys.stdout), console(sys.stderr)
        self._as_json, self._quiet, self._plan, self._verbose = as_json, quiet, plan, verbose
        self._start = monotonic()
        self._one_place = same_file(sys.stdout, sys.stderr)
        self._shown: set[object] = set()
        self._meter: Meter = Bar(self._err) if draws(sys.stderr) else Lines(self._err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self._meter.stop()

    def planned(self, report: Report) -> None:
        """Show what was recognised and what will be done."""
        self._warn(report, but=report.last)
        if self._plan and not self._quiet:
            self._err.print(_heading("plan", report.result, "blue"), soft_wrap=True)
            facts.show(self._err, report.facts, verbose=self._verbose)
            self._shown.update(report.facts)

    def phase(self, phase: str) -> None:
        """Show what it is at."""
        if not self._quiet:
            self._meter.begin(phase)

    def rest(self) -> None:
        """Leave the terminal to a library that shows by itself how far it is."""
        self._meter.stop()

    def progress(self, done: int, total: int) -> None:
        """Show how far it is."""
        if not self._quiet:
            self._meter.show(done, total)

    def summary(self, report: Report) -> None:
        """Show the result: first what came of it, then what to know of it, then what to do next."""
        if self._as_json:
            self._warn(report)
            self._document(report.as_dict())
            return
        if not self._quiet or report.status == "different":
            self._out.print(self._result(report), soft_wrap=True)
        if self._quiet:
            self._warn(report)
            return
        self._warn(report, but=report.last)
        seen = self._shown if self._one_place else set()
        facts.show(self._out, [fact for fact in report.facts if fact not in seen], verbose=self._verbose)
        self._findings(report.findings)
        if report.heat_map:
            self._out.print(*heat.lines(report.heat_map, self._out.file, whole=self._verbose), sep="\n", soft_wrap=True)
        self._differences(report.differences)
        self._steps(report)
        if report.last:
            self._out.print(Text(message(report.last), "yellow"), soft_wrap=True)

    def _result(self, report: Report) -> Text:
        word, colour = WORDS[report.status]
        took = f" ({duration(monotonic() - self._start)})"
        if not report.result:
            return _heading(report.command, f"{word}{took}", colour)
        if report.status == "planned":
            return _heading(word, f"{report.result}{took}", colour)
        return _heading("", f"{report.result}{took}", colour)

    def _differences(self, differences: Sequence[Difference]) -> None:
        if not differences:
            return
        listed = worst_first(differences)
        if not on_terminal(self._out.file):
            for line in lines(listed):
                self._out.file.write(line + "\n")
            return
        rows = len(listed) if self._verbose else ROWS
        self._out.print(table(listed[:rows], self._out.width, whole=self._verbose))
        if len(listed) > rows:
            self._out.print(f"  … and {len(listed) - rows} more; --verbose shows them, --json lists them all")

    def _findings(self, listed: Sequence[Finding]) -> None:
        if listed and on_terminal(self._out.file):
            self._out.print(findings.table(listed))
        elif listed:
            self._out.file.writelines(line + "\n" for line in findings.lines(listed))

    def _steps(self, report: Report) -> None:
        """Whole lines, however long, so that they can be copied."""
        wide = max((len(step.name) for step in report.steps), default=0)
        for step in report.steps if report.status != "planned" else ():
            self._out.print(Text(f"  to {step.name:<{wide}}  {one_line(step.command)}"), soft_wrap=True)

    def fault(self, command: str, kind: str, what: str, hint: str, status: str, report: Report | None = None) -> None:
        """Show why a command ended early, or, behind its report, what failed after the work."""
        if report and not self._as_json:
            self.summary(report)
        if on_terminal(self._err.file):
            text = Text.assemble((message(what), "bold"), *(["\n", message(hint)] if hint else []))
            self._err.print(Panel(text, title=status, title_align="left", border_style="red"))
        else:
            self._err.print(
                f"{status}: {message(what)}", *([f"  {message(hint)}"] if hint else []), sep="\n", soft_wrap=True
            )
        if self._as_json:
            found = report.as_dict() if report else {"command": command, "status": status}
            self._document({**found, "error": {"type": kind, "what": what, "hint": hint}})

    def _warn(self, report: Report, but: str = "") -> None:
        for warning in report.warnings:
            if warning not in self._shown and (not but or warning != but):
                self._shown.add(warning)
                self._err.print(Text.assemble(("warning: ", "yellow"), message(warning)), soft_wrap=True)

    def _document(self, document: dict[str, Any]) -> None:
        self._out.file.write(
            json.dumps(_finite({"vlconv": __version__, **document}), indent=2, allow_nan=False, default=str) + "\n"
        )
        self._out.file.flush()


def print_lines(lines: Iterable[str]) -> None:
    """Plain lines on stdout, for a pipe."""
    for line in lines:
        sys.stdout.write(safe(line).replace("\\t", "\t") + "\n")


def _heading(before: str, text: str, colour: str) -> Text:
    return Text(": ".join(filter(None, [before, message(text)])), style=f"bold {colour}")


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become their names."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
