"""vlconv itself: which command is meant, and what is said where none is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import typer
from typer.core import TyperGroup

from vlconv.render import Screen

UsageError: Any = typer.BadParameter.__base__
"""What is raised for wrong usage. typer has it from click, or as its own; it names it nowhere."""


class Commands(TyperGroup):
    """The commands. `help X` is `X --help`; wrong usage under `--json` is told in JSON."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read `help` and `help X` as the option."""
        if args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command, or list those there are."""
        try:
            return super().resolve_command(ctx, args)
        except UsageError as error:
            error.message += f" There are: {', '.join(self.list_commands(ctx))}."
            raise

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run one command and exit."""
        given = sys.argv[1:] if args is None else list(args)
        as_json = standalone_mode and "--json" in given
        try:
            code = super().main(
                given, prog_name, complete_var, standalone_mode and not as_json, windows_expand_args, **extra
            )
        except UsageError as error:
            if not as_json:
                raise
            sys.exit(_told(error))
        if as_json:
            sys.exit(code or 0)
        return code


def _told(error: Any) -> int:
    """Say what is wrong with the usage, as a document on stdout and in words on stderr; its exit code."""
    path = error.ctx.command_path if error.ctx else "vlconv"
    command = path.rpartition(" ")[2]
    Screen(as_json=True).fault(command, "UsageError", error.format_message(), f"See {path} --help.", "error")
    return int(error.exit_code)
