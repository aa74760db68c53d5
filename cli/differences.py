"""Differences as people read them, the worst first, and as a pipe takes them, one line for each."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from vlconv.text import one_line

if TYPE_CHECKING:
    from vlconv.converters import Difference

ROWS = 20
"""Rows of the table on a terminal; --verbose has them all."""

WHAT = 40
"""Columns that are left to what differs, where it needs as many."""

LEAST = 20
"""Columns of a name, however narrow the terminal is."""

_LAYER = re.compile(r"(?:layers|blocks)\.\d{1,6}\.")


def table(differences: Sequence[Difference], width: int, *, whole: bool = False) -> Table:
    """A table without lines, each difference in a row.

    Args:
        differences: as they are to be shown.
        width: of the terminal.
        whole: where in a tensor the first difference is, too.
    """
    said = [what(d, whole=whole) for d in differences]
    room = max(LEAST, width - 4 - min(WHAT, max(map(len, said))))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, overflow="crop")
    grid.add_column(overflow="fold")
    for difference, text in zip(differences, said, strict=True):
        grid.add_row(Text("  " + fitted(one_line(difference.tensor), room - 2)), Text(text))
    return grid


def worst_first(differences: Sequence[Difference]) -> list[Difference]:
    """What is no matter of numbers, then NaN and infinity, then the largest differences."""

    def rank(difference: Difference) -> tuple[int, float]:
        if difference.kind != "values":
            return 0, 0.0
        if difference.nan or difference.max_abs is None:
            return 1, -float(difference.nan)
        return 2, -difference.max_abs

    return sorted(differences, key=rank)


def what(difference: Difference, *, whole: bool = True) -> str:
    """What differs: "1,234 elements, 3 of them NaN, at most 0.03, first at [3, 4]"; the place only if it is `whole`."""
    return ", ".join(_words(difference, whole=whole))


def _words(d: Difference, *, whole: bool) -> Iterator[str]:
    if d.kind != "values" or not d.count:
        yield one_line(d.kind)
    if d.count:
        yield f"{d.count:,} element{'s' * (d.count > 1)}"
    if d.nan:
        yield f"{d.nan:,} of them NaN"
    if d.max_abs is not None:
        yield f"at most {d.max_abs:.3g}"
    if whole and d.first:
        yield f"first at {one_line(list(d.first))}"
    if d.note:
        yield one_line(d.note)


def fitted(name: str, room: int) -> str:
    """A name in so many columns: whole, or without its beginning, but never without its layer where it has one."""
    if len(name) <= room:
        return name
    layer = _LAYER.search(name)
    if layer and layer.start() < len(name) - room + 1:
        head = f"…{layer.group()}…"
        return head + name[-max(1, room - len(head)) :]
    start = len(name) - room + 1
    dot = name.find(".", start - 1, name.rfind(".")) + 1  # a whole word is read better than a part of one
    return f"…{name[dot if dot and not (layer and layer.start() < dot) else start :]}"


def lines(differences: Sequence[Difference]) -> Iterator[str]:
    """A line of each, its fields between tabs: tensor, kind, elements, first of them, largest, NaN, note."""
    for d in differences:
        first = list(d.first) if d.first else ""
        largest = "" if d.max_abs is None else f"{d.max_abs:.6g}"
        fields = (d.tensor, d.kind, d.count or "", first, largest, d.nan or "", d.note)
        yield "\t".join(one_line(field) for field in fields)
