"""vlconv verify."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vlconv import converters
from vlconv.arguments import RUN, with_options
from vlconv.helped import Helped
from vlconv.run import Afterwards

if TYPE_CHECKING:
    from vlconv.page import Page

EXAMPLES = """[bold]Examples[/bold]

[dim]# a trainer's checkpoint against the directory made of it: every element[/dim]

vlconv verify checkpoints Qwen3-VL-mine

[dim]# two iterations of one save directory[/dim]

vlconv verify checkpoints:100 checkpoints:200

[dim]# there and back in memory; add --on-disk to really write both[/dim]

vlconv verify checkpoints

[dim]# what another tool wrote, against the model it was trained from: no source is needed[/dim]

vlconv verify exported --like Qwen/Qwen3-VL-8B-Instruct

[dim]# what training changed, as a page with a picture: layer by layer, module by module[/dim]

vlconv verify base tuned --report changes.html

[dim]# and what both compute, text and images; of a checkpoint alone megatron-core and transformers[/dim]

vlconv verify checkpoints Qwen3-VL-mine --forward

[dim]# read a second time by megatron-core itself (it unpickles: trust the checkpoint)[/dim]

vlconv verify checkpoints --witness megatron-core

[bold]Exit status[/bold]

0 same, 1 different or failed, 2 wrong usage, 3 not comparable
"""


class Verify(Helped):
    """`--on-disk` takes a directory or nothing, which typer has no word for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--on-disk` a value that stands for it."""
        last = len(args) - 1
        bare = [i for i, arg in enumerate(args) if arg == "--on-disk" and (i == last or args[i + 1].startswith("-"))]
        return super().parse_args(ctx, [f"--on-disk={BESIDE_A}" if i in bare else arg for i, arg in enumerate(args)])


BESIDE_A = "(beside A)"
"""What a bare `--on-disk` stands for."""


@with_options(converters.VerifyOptions)
def verify(
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="Megatron checkpoint or Hugging Face directory; SAVE:100 for an iteration, org/name\\[@revision] for "
            "a model on the Hub, fetched into its cache.",
        ),
    ],
    b: Annotated[
        str | None, typer.Argument(metavar="B", help="The other side. Left out: A is converted there and back.")
    ] = None,
    *,
    report: Annotated[
        Path | None,
        typer.Option(
            "--report",
            metavar="FILE",
            help="Write what was found as one HTML page, too, with a picture of how far each module of each layer is "
            "apart. An earlier page is replaced; of a dry run none is written.",
            rich_help_panel=RUN,
        ),
    ] = None,
    options: converters.VerifyOptions,
    observer: converters.Observer,
) -> converters.Report:
    """Compare two checkpoints element by element, or one with what comes back from a round trip.

    Nothing is written but a page, with --report. Equality is of bits. A round trip proves that nothing is lost, and
    nothing about the layout: for that compare with the other side, or call a witness.
    """
    if options.on_disk == Path(BESIDE_A):
        options = replace(options, on_disk=Path(a).absolute().parent)
    read = (*options.references, options.like, options.base)
    page = _page(report, a, b, read) if report else None
    found = converters.verify(a, b, options, observer)
    if page and not options.dry_run:
        try:
            page.write(found)
        except converters.VlconvError as fault:
            raise Afterwards(found) from fault
        found.fact("report", str(report), report=str(report))
    return found


def _page(path: Path, a: str, b: str | None, read: Iterable[str | Path | None]) -> Page:
    from vlconv.page import Page  # not at every start

    return Page(path, a, b, read)
