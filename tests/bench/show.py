"""Shows one or more bench.json: the tables on the terminal, the plots as PNG.

python -m bench.show BENCH.json… [--out DIR] [--markdown]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from . import table


def show(documents: Sequence[dict[str, Any]], out: Path | None, markdown: bool = False) -> None:
    """Print the tables of each, and plot all of them together.

    Args:
        documents: what bench.json holds.
        out: where bench.png and curves.png go; None: nowhere.
        markdown: print tables as README has them.
    """
    console = Console() if sys.stdout.isatty() and not markdown else Console(width=200)
    for document in documents:
        table.plain(document, markdown, console)
    if out is None:
        return
    try:
        from . import plot, plot_curves
    except ImportError as fault:
        console.print(f"no plot: {fault}", markup=False)
        return
    for path in (plot.plot(documents, out / "bench.png"), plot_curves.plot(documents, out / "curves.png")):
        if path:
            console.print(f"plotted {path}", markup=False, highlight=False, soft_wrap=True)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.show", description="Tables and plots of bench.json.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--markdown", action="store_true")
    asked = parser.parse_args()
    show([json.loads(path.read_text()) for path in asked.files], asked.out, asked.markdown)


if __name__ == "__main__":
    main()
