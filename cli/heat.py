"""A heat map as people read it: a row for each layer, a shade for how far its modules are apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO, TYPE_CHECKING

from rich.text import Text

if TYPE_CHECKING:
    from vlconv.converters import HeatMap

SHADES = "·░▒▓█"
PLAIN = ".-=+#"
"""For terminals and logs that have no such characters."""

COLOURS = ("dim", "green", "yellow", "dark_orange", "bold red")
STEPS = (1e-3, 1e-2, 1e-1)
"""Relative differences at which a shade gives way to the next; the first shade is for equal tensors."""

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
    rows = _bands(heat, 1 if whole else -(-len(heat.rows) // MOST))
    label = max(len(name) for name, _ in rows)
    widths = [max(3, len(column)) for column in heat.columns]
    yield Text(f"  {'':<{label}}  " + " ".join(f"{c:^{w}}" for c, w in zip(heat.columns, widths, strict=True)), "dim")
    for name, cells in rows:
        line = Text(f"  {name:<{label}}  ")
        for cell, width in zip(cells, widths, strict=True):
            level = _level(cell)
            line.append(" " * width if level is None else f"{shades[level] * 3:^{width}}", _colour(level))
            line.append(" ")
        line.rstrip()
        yield line
    limits = [f"below {step:g}" for step in STEPS] + ["more"]
    legend = "  ".join(f"{shade} {limit}" for shade, limit in zip(shades, ["same", *limits], strict=True))
    yield Text(f"  {legend}  (difference relative to A)", "dim")


def _shades(file: IO[str]) -> str:
    try:
        SHADES.encode(getattr(file, "encoding", None) or "utf-8")
    except (UnicodeEncodeError, LookupError):
        return PLAIN
    return SHADES


def _level(cell: float | None) -> int | None:
    if cell is None:
        return None
    return 0 if cell == 0 else 1 + sum(cell >= step for step in STEPS)


def _colour(level: int | None) -> str:
    return "" if level is None else COLOURS[level]


def _bands(heat: HeatMap, size: int) -> list[Row]:
    """The rows by name, `size` neighbours of one kind together; what is in no layer is called so."""
    groups: list[list[int]] = []
    for number, name in enumerate(heat.rows):
        last = groups[-1] if groups else []
        if last and len(last) < size and _kind(heat.rows[last[0]]) == _kind(name):
            last.append(number)
        else:
            groups.append([number])
    return [(_name([heat.rows[n] for n in group]), _largest([heat.cells[n] for n in group])) for group in groups]


def _kind(name: str) -> str:
    return name.rstrip("0123456789") if name else "none"


def _name(rows: list[str]) -> str:
    first, last = rows[0], rows[-1]
    if not first:
        return "others"
    words = first if first.startswith("vision") else f"layer {first}"
    return words if first == last else f"{words} to {last.split()[-1]}"


def _largest(rows: list[list[float | None]]) -> list[float | None]:
    columns = ([cell for cell in column if cell is not None] for column in zip(*rows, strict=True))
    return [max(column, default=None) for column in columns]
