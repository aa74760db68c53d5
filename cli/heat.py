"""A heat map as people read it: a row for each layer, a shade for how far its modules are apart."""

from __future__ import annotations

from collections.abc import Iterator
from math import isnan
from typing import IO, TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from vlconv.converters import HeatMap

SHADES = "·░▒▓█?"
PLAIN = ".-=+#?"
"""For terminals and logs that have no such characters."""

COLOURS = ("dim", "green", "yellow", "dark_orange", "bold red", "bold red")
STEPS = (1e-3, 1e-2, 1e-1)
"""Relative differences at which a shade gives way to the next; the first shade is for equal tensors."""

LEGEND = ("same", *(f"below {step:g}" for step in STEPS), "more", "differs, not measured")
"""What each level means; the last one is left out where it is not used."""

MOST = 32
"""Rows, unless all are asked for: then several layers share one, which shows the largest difference of them."""

Row = tuple[str, list[float | None]]


def lines(heat: HeatMap, file: IO[str], *, whole: bool = False) -> Iterator[Text]:
    """The map: a head, a line for each row, and what the shades mean.

    Args:
        heat: the map.
        file: that it is written to.
        whole: a line for each layer, however many there are.
    """
    shades = _shades(file)
    rows = bands(heat, len(heat.rows) if whole else MOST)
    label = max(len(name) for name, _ in rows)
    widths = [max(3, len(column)) for column in heat.columns]
    yield Text(f"  {'':<{label}}  " + " ".join(f"{c:^{w}}" for c, w in zip(heat.columns, widths, strict=True)), "dim")
    for name, cells in rows:
        line = Text(f"  {name:<{label}}  ")
        for cell, width in zip(cells, widths, strict=True):
            at = None if cell is None else level(cell)
            line.append(" " * width if at is None else f"{shades[at] * 3:^{width}}", "" if at is None else COLOURS[at])
            line.append(" ")
        line.rstrip()
        yield line
    legend = "  ".join(f"{shade} {words}" for shade, words in zip(shades, legend_of(heat), strict=False))
    yield Text(f"  {legend}  (difference relative to A)", "dim")


def _shades(file: IO[str]) -> str:
    try:
        SHADES.encode(getattr(file, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return SHADES


def level(cell: float) -> int:
    """The shade of a relative difference: 0 for equal tensors, then one for each step that it reaches; NaN: last."""
    if isnan(cell):
        return len(LEGEND) - 1
    return 0 if cell == 0 else 1 + sum(cell >= step for step in STEPS)


def legend_of(heat: HeatMap) -> tuple[str, ...]:
    """What the levels of a map mean, from the first on."""
    unknown = any(cell is not None and isnan(cell) for row in heat.cells for cell in row)
    return LEGEND if unknown else LEGEND[:-1]


def bands(heat: HeatMap, most: int) -> list[Row]:
    """The rows by name, at most about so many: where there are more, neighbours of one kind share one.

    What is in no layer is called so.
    """
    size = max(1, -(-len(heat.rows) // most))
    groups: list[list[int]] = []
    for number, name in enumerate(heat.rows):
        last = groups[-1] if groups else []
        if last and len(last) < size and _kind(heat.rows[last[0]]) == _kind(name):
            last.append(number)
        else:
            groups.append([number])
    return [(_name([heat.rows[n] for n in group]), _worst(heat, group)) for group in groups]


def _kind(name: str) -> str:
    return name.rstrip("0123456789") if name else "none"


def _name(rows: list[str]) -> str:
    first, last = rows[0], rows[-1]
    if not first:
        return "others"
    words = first if first.startswith("vision") else f"layer {first}"
    return words if first == last else f"{words} to {last.split()[-1]}"


def _worst(heat: HeatMap, group: list[int]) -> list[float | None]:
    return [heat.worst(column) for column in zip(*(heat.cells[n] for n in group), strict=True)]
