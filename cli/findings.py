"""What was found of a directory that another tool wrote, a row or a line for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from vlconv.text import one_line

if TYPE_CHECKING:
    from vlconv.converters import Finding

COLOURS = {"wrong": "red", "note": "cyan"}


def table(findings: Sequence[Finding]) -> Table:
    """A table without lines: how bad, what, and what comes of it."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for found in findings:
        text = Text.assemble(one_line(found.what), (f"  at load: {one_line(found.load)}", "dim"))
        grid.add_row(Text(f"  {one_line(found.severity)}", COLOURS.get(found.severity, "")), text)
    return grid


def lines(findings: Sequence[Finding]) -> Iterator[str]:
    """A line of each, its fields between tabs: how bad, what it is about, what, and what comes of it."""
    for found in findings:
        yield "\t".join(one_line(part) for part in (found.severity, found.kind, found.what, found.load))
