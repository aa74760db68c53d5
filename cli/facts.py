"""Facts as people read them: a label, and a sentence or several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlconv.streams import on_terminal
from vlconv.text import CHARACTERS, LINES, safe

if TYPE_CHECKING:
    from vlconv.converters import Fact


def show(console: Console, facts: Sequence[Fact], *, verbose: bool) -> None:
    """Print them: in columns on a terminal, in whole lines elsewhere.

    Args:
        console: to print on.
        facts: in reading order; those that a summary leaves out are left out.
        verbose: whole, instead of what a summary says.
    """
    rows = [(safe(fact.label), _text_of(fact, verbose=verbose)) for fact in facts]
    rows = [(label, text) for label, text in rows if text]
    if on_terminal(console.file):
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True)
        grid.add_column(overflow="fold")
        for label, text in rows:
            grid.add_row(Text(f"  {label}"), Text(text))
        console.print(grid)
        return
    wide = max((len(label) for label, _ in rows), default=0)
    for label, text in rows:
        lines = ("\n" + " " * (wide + 4)).join(text.split("\n")[:LINES])
        console.print(Text(f"  {label:<{wide}}  {lines}"), soft_wrap=True)


def _text_of(fact: Fact, *, verbose: bool) -> str:
    text = fact.text if verbose or fact.brief is None else fact.brief
    return safe(text)[:CHARACTERS]
