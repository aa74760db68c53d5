"""What stdout and stderr are: a terminal that is drawn on, one that takes lines alone, a log."""

from __future__ import annotations

import os
from typing import IO, TextIO

from rich.console import Console

PLAIN = ("dumb", "unknown")
"""Terminals, by TERM, that only take lines."""


def console(file: TextIO) -> Console:
    """A console that writes there as it is told, without marks of its own."""
    # Logs get lines as long as they are; a terminal gets them folded.
    return Console(file=file, highlight=False, markup=False, emoji=False, width=None if file.isatty() else 1000)


def on_terminal(file: IO[str]) -> bool:
    """Whether people read it as it is drawn: colours may be forced on a pipe, a width and boxes may not."""
    return file.isatty() and os.environ.get("TERM", "").lower() not in PLAIN


def draws(file: IO[str]) -> bool:
    """Whether a bar can be drawn there again and again; the log of a CI job keeps every drawing, terminal or not."""
    return on_terminal(file) and os.environ.get("CI", "").lower() in ("", "0", "false")


def same_file(a: TextIO, b: TextIO) -> bool:
    """Whether what is written to both meets the same eyes."""
    try:
        return os.path.sameopenfile(a.fileno(), b.fileno())
    except OSError:
        return False
