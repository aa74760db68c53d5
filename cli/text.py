"""Text that is safe to show: whatever a stranger's name made of it, no terminal acts on it and the screen holds it."""

from __future__ import annotations

import unicodedata

LINES, CHARACTERS = 60, 6_000
"""Of one error or warning, at most: whatever a stranger's name made of it, the screen still shows what stood there."""

CELL = 500
"""Characters of a cell of a table."""

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories of characters that act on a terminal, or hide, instead of being read."""


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
