"""A heat map in pieces that a page holds: layers, blocks and the others apart, each with the columns that it uses."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from math import isnan
from typing import TYPE_CHECKING, NamedTuple

from vlconv.heat import LEGEND, bands, level
from vlconv.text import one_line

if TYPE_CHECKING:
    from vlconv.converters import HeatMap

MOST = 400
"""Rows of a page; of more layers several share one."""

TALL = 48
"""Rows of one picture: so many fit on a printed page with the names of their columns."""

TITLES = {"layer": "Language model", "vision": "Vision tower", "others": "In no layer"}
"""By the first word of the rows' names."""


class Cell(NamedTuple):
    """A module of a layer.

    Attributes:
        value: the difference relative to A.
        level: as in `vlconv.heat`.
        words: the value in a few characters; "=" where all is equal, "?" where it is not known.
        says: the same in words.
    """

    value: float
    level: int
    words: str
    says: str


class Line(NamedTuple):
    """A layer, or several that share a row; a cell of None has no tensor."""

    name: str
    cells: list[Cell | None]


class Map(NamedTuple):
    """One kind of layers.

    Attributes:
        title: of what.
        columns: the modules.
        lines: from first to last.
    """

    title: str
    columns: list[str]
    lines: list[Line]

    @property
    def pictures(self) -> list[list[Line]]:
        """The lines, so many to a picture that it can be printed."""
        return [self.lines[start : start + TALL] for start in range(0, len(self.lines), TALL)]


def maps(heat: HeatMap | None) -> Iterator[Map]:
    """The pieces of a map, if there is one."""
    rows = bands(heat, MOST) if heat else []
    for kind, found in groupby(rows, key=lambda row: row[0].split()[0]):
        group = list(found)
        used = [n for n in range(len(group[0][1])) if any(cells[n] is not None for _, cells in group)]
        names = heat.columns if heat else []
        lines = [Line(one_line(name), [_cell(cells[n]) for n in used]) for name, cells in group]
        yield Map(TITLES[kind], [one_line(names[n]) for n in used], lines)


def _cell(value: float | None) -> Cell | None:
    return None if value is None else Cell(value, at := level(value), _words(value), _says(value, LEGEND[at]))


def _words(value: float) -> str:
    """Two digits, in at most seven characters: "0.031", "6.9e-4"."""
    if value == 0:
        return "="
    if isnan(value):
        return "?"
    return f"{value:.2g}" if value >= 1e-3 else f"{value:.1e}".replace("e-0", "e-")


def _says(value: float, else_: str) -> str:
    return f"{value:.4g} relative to A" if value > 0 else else_
