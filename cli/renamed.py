"""Options that an earlier version called otherwise: refused with the name that they have now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import typer

from vlconv.helped import Helped


def renamed(names: Mapping[str, str]) -> type[Helped]:
    """A command that refuses old names of its options.

    Args:
        names: old name -> new name.
    """

    class Renamed(Helped):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            """Refuse an old name, whatever stands around it."""
            for arg in args:
                old = arg.partition("=")[0]
                if old in names:
                    raise typer.BadParameter(f"{old} is called {names[old]} here", ctx=ctx)
            return super().parse_args(ctx, args)

    return Renamed
