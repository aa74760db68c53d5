"""What people and programs see: the plan and the progress on stderr, the result on stdout.

The only place that prints.
"""

from __future__ import annotations

import json
import math
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console, Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from vlconv.progress import Bar, Lines, Meter, duration

if TYPE_CHECKING:
    from vlconv.converters import Difference, Fact, Report

ROWS = 50
"""Rows of the table of differences; the JSON document has them all."""

WORDS = {
    "done": ("done", "green"),
    "planned": ("dry run, nothing was written", "cyan"),
    "same": ("same", "green"),
    "different": ("different", "red"),
    "not comparable": ("not comparable", "yellow"),
}

LINES, CHARACTERS = 60, 6_000
"""Of one error or warning, at most: whatever a stranger's name made of it, the screen still shows what stood there."""

CELL = 500
"""Characters of a cell of a table."""

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of characters that act on a terminal, or hide, instead of being read."""


class Screen:
    """Shows one command, as its Observer would have it.

    Args:
        as_json: the result is one JSON document.
        quiet: say nothing but warnings and errors.
        plan: show the plan before the work; a dry run's result says the same.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, plan: bool = True) -> None:
        self._out, self._err = _console(sys.stdout), _console(sys.stderr)
        self._as_json, self._quiet, self._plan = as_json, quiet, plan
        self._start = monotonic()
        self._one_place = _same_file(sys.stdout, sys.stderr)
        self._shown: set[object] = set()
        self._meter: Meter = Bar(self._err) if sys.stderr.isatty() else Lines(self._err)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *fault: object) -> None:
        self._meter.stop()

    def planned(self, report: Report) -> None:
        """Show what was recognised and what will be done."""
        self._warn(report.warnings)
        if self._plan and not self._quiet:
            _facts(self._err, "plan", "blue", report.facts)
            self._shown.update(report.facts)

    def phase(self, phase: str) -> None:
        """Show what it is at."""
        if not self._quiet:
            self._meter.begin(phase)

    def progress(self, done: int, total: int) -> None:
        """Show how far it is."""
        if not self._quiet:
            self._meter.show(done, total)

    def summary(self, report: Report) -> None:
        """Show the result."""
        self._warn(report.warnings)
        if self._as_json:
            self._document(report.as_dict())
        elif not self._quiet:
            if report.differences:
                self._out.print(_table(report.differences))
                _left_out(self._out, len(report.differences))
            word, colour = WORDS[report.status]
            seen = self._shown if self._one_place else set()
            title = f"{report.command}: {word} ({duration(monotonic() - self._start)})"
            _facts(self._out, title, colour, [fact for fact in report.facts if fact not in seen])

    def fault(self, command: str, kind: str, what: str, hint: str, status: str) -> None:
        """Show why a command ended early."""
        if self._err.is_terminal:
            text = Text.assemble((message(what), "bold"), *(["\n", message(hint)] if hint else []))
            self._err.print(Panel(text, title=status, title_align="left", border_style="red"))
        else:
            self._err.print(
                f"{status}: {message(what)}", *([f"  {message(hint)}"] if hint else []), sep="\n", soft_wrap=True
            )
        if self._as_json:
            self._document({"command": command, "status": status, "error": {"type": kind, "what": what, "hint": hint}})

    def _warn(self, warnings: Sequence[str]) -> None:
        for warning in warnings:
            if warning not in self._shown:
                self._shown.add(warning)
                self._err.print(Text.assemble(("warning: ", "yellow"), message(warning)), soft_wrap=True)

    def _document(self, document: dict[str, Any]) -> None:
        self._out.file.write(json.dumps(_finite(document), indent=2, allow_nan=False, default=str) + "\n")
        self._out.file.flush()


def print_lines(lines: Iterable[str]) -> None:
    """Plain lines on stdout, for a pipe."""
    for line in lines:
        sys.stdout.write(safe(line).replace("\\t", "\t") + "\n")


def message(text: str) -> str:
    """An error, hint or warning: safe, and its lines after the first are indented.

    So no line of ours is made by what it tells of, and what is told stays on the screen.
    """
    lines = safe(text[:CHARACTERS])[:CHARACTERS].split("\n")
    shown = [line if number == 0 or line.startswith(" ") else f"  {line}" for number, line in enumerate(lines[:LINES])]
    cut = len(text) > CHARACTERS or len(lines) > LINES
    return "\n".join([*shown, *["  …"] * cut])


def one_line(text: object) -> str:
    """A name as it stands in a cell of a table or in a line: safe, and not longer than that."""
    line = safe(str(text)[:CELL]).replace("\n", "\\n")
    return line if len(line) <= CELL and len(str(text)) <= CELL else line[:CELL] + "…"


def safe(text: object) -> str:
    """Text in which nothing acts on a terminal: a name out of a file may hold escape sequences."""
    return "".join(_escaped(c) if c != "\n" and unicodedata.category(c) in HIDDEN else c for c in str(text))


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def _console(file: TextIO) -> Console:
    # Logs get lines as long as they are; a terminal gets them folded.
    return Console(file=file, highlight=False, markup=False, emoji=False, width=None if file.isatty() else 1000)


def _same_file(a: TextIO, b: TextIO) -> bool:
    """Whether what is written to both meets the same eyes."""
    try:
        return os.path.sameopenfile(a.fileno(), b.fileno())
    except OSError:
        return False


def _facts(console: Console, title: str, colour: str, facts: Sequence[Fact]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for fact in facts:
        grid.add_row(Text(safe(fact.label)), Text(safe(fact.text)[:CHARACTERS]))
    heading = Text(title, style=f"bold {colour}")
    if console.is_terminal:
        console.print(
            Panel(Group(grid), title=heading, title_align="left", border_style=colour, expand=False)
            if facts
            else heading
        )
        return
    console.print(heading, soft_wrap=True)
    wide = max((len(safe(fact.label)) for fact in facts), default=0)
    for fact in facts:
        label, text = fact.label, fact.text
        lines = ("\n" + " " * (wide + 4)).join(safe(text)[:CHARACTERS].split("\n")[:LINES])
        console.print(Text(f"  {safe(label):<{wide}}  {lines}"), soft_wrap=True)


def _table(differences: Sequence[Difference]) -> Table:
    table = Table("tensor", "what differs")
    table.columns[0].overflow = "fold"
    for title in ("elements", "first at", "max |difference|"):
        table.add_column(title, justify="right")
    table.add_column("note")
    for d in differences[:ROWS]:
        first = str(list(d.first)) if d.first else ""
        size = f"{d.max_abs:.3g}" if d.max_abs is not None else ""
        table.add_row(
            *(
                Text(one_line(part))
                for part in (d.tensor, d.kind, f"{d.count:,}" if d.count else "", first, size, d.note)
            )
        )
    return table


def _left_out(console: Console, count: int) -> None:
    if count > ROWS:
        console.print(f"… and {count - ROWS} more; --json lists them all", soft_wrap=True)


def _finite(value: Any) -> Any:
    """JSON knows no NaN and no infinity: they become their names."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
