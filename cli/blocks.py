"""A model's blocks as lines of a tree, with their parameters and dtypes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from rich.cells import cell_len
from rich.text import Text

from vlconv.render import one_line
from vlconv.sizes import count

if TYPE_CHECKING:
    from vlconv.converters import Block

DEPTH = 2
"""Levels that are shown below modules that are alike; all are shown above them."""

GAP = 2


class _Line(NamedTuple):
    """A line before it is aligned."""

    name: str
    size: str
    dtypes: str


def tree(blocks: Sequence[Block], width: int) -> Iterator[Text]:
    """The lines, in columns.

    Args:
        blocks: the roots.
        width: of the screen; names give way.
    """
    lines = [line for block in blocks for line in _lines(block, "", "", 99)]
    size = max(cell_len(line.size) for line in lines)
    dtypes = max(cell_len(line.dtypes) for line in lines)
    room = max(20, width - size - dtypes - 2 * GAP)
    wide = min(room, max(cell_len(line.name) for line in lines))
    for line in lines:
        name = line.name if cell_len(line.name) <= wide else f"{line.name[: wide - 1]}…"
        yield Text.assemble(
            name + " " * (wide - cell_len(name) + GAP), f"{line.size:>{size}}", " " * GAP, (line.dtypes, "dim")
        )


def _lines(block: Block, first: str, rest: str, depth: int) -> Iterator[_Line]:
    each = " each" if block.times > 1 else ""
    size = f"{count(block.parameters // block.times)}{each}"
    yield _Line(first + _name(block), size, ", ".join(block.dtypes))
    depth = min(depth - 1, DEPTH if block.times > 1 else depth)
    if not depth:
        return
    last = len(block.blocks) - 1
    for number, inner in enumerate(block.blocks):
        branch, below = ("└─ ", "   ") if number == last else ("├─ ", "│  ")
        yield from _lines(inner, rest + branch, rest + below, depth)


def _name(block: Block) -> str:
    """What a block is called: "layers × 28", or "× 3 (0, 4, 8)" among others of the same list."""
    if not block.numbers:
        return one_line(block.name)
    times = f"× {block.times}"
    return f"{one_line(block.name)} {times}" if block.name else f"{times} ({block.numbers})"
