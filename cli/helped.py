"""The help of a command: names whole at 80 columns, and what a NAME may be listed below."""

from __future__ import annotations

import textwrap
from copy import copy
from shutil import get_terminal_size
from typing import Any

import typer
from typer.core import TyperCommand

from vlconv import converters

LAYOUTS = {"layout", "as_layout"}
"""Parameters that take the name of a layout."""


class Helped(TyperCommand):
    """A command whose options are shown by their shortest names; the others, and the layouts, stand below."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help."""
        shown = copy(self)
        shown.params = [_by_shortest(param) for param in self.params]
        TyperCommand.format_help(shown, ctx, formatter)
        others = [(param.opts[0], param.opts[1]) for param in self.params if _several(param)]
        if others:
            _section("Other names, as Megatron has them", others)
        if any(param.name in LAYOUTS for param in self.params):
            _section("Layouts, and the trainers that write them", [*converters.trainers().items()])


def complete_layout(incomplete: str) -> list[tuple[str, str]]:
    """The layouts that begin so, for the shell, with the trainers that write them."""
    return [(name, who) for name, who in converters.trainers().items() if name.startswith(incomplete)]


def _several(param: Any) -> bool:
    return len([name for name in param.opts if name.startswith("--")]) > 1


def _by_shortest(param: Any) -> Any:
    """A parameter of several long names as one of a single name: in one cell they would be cut."""
    if not _several(param):
        return param
    param = copy(param)
    param.opts = param.opts[:1]
    return param


def _section(title: str, rows: list[tuple[str, str]]) -> None:
    wide, width = max(len(name) for name, _ in rows) + 3, get_terminal_size().columns
    typer.secho(f" {title}", bold=True)
    for name, text in rows:
        lines = textwrap.wrap(text, max(20, width - wide - 1), break_on_hyphens=False)
        typer.echo(f" {name:<{wide}}" + ("\n" + " " * (wide + 1)).join(lines))
    typer.echo()
