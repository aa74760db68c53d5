"""vlconv verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from vlconv import arguments as a
from vlconv.run import run

# vlconv.converters is imported inside the command: `vlconv --help` must not wait for numpy.

VERIFY = """[bold]Examples[/bold]

[dim]# a trainer's checkpoint against the directory made of it: every element[/dim]

vlconv verify checkpoints Qwen3-VL-mine

[dim]# there and back in memory; add --on-disk to really write both[/dim]

vlconv verify checkpoints

[dim]# read a second time by megatron-core itself (it unpickles: trust the checkpoint)[/dim]

vlconv verify checkpoints --witness megatron-core

[bold]Exit status[/bold]

0 same, 1 different or failed, 2 wrong usage, 3 not comparable
"""


class Verify(TyperCommand):
    """`--on-disk` takes a directory or nothing, which typer has no word for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare `--on-disk` an empty value."""
        bare = [
            i
            for i, arg in enumerate(args)
            if arg == "--on-disk" and (i + 1 == len(args) or args[i + 1].startswith("-"))
        ]
        return super().parse_args(ctx, ["--on-disk=" if i in bare else arg for i, arg in enumerate(args)])


def verify(
    a_side: Annotated[Path, typer.Argument(metavar="A", help="Megatron checkpoint or Hugging Face directory.")],
    b_side: Annotated[
        Path | None, typer.Argument(metavar="B", help="The other side. Left out: A is converted there and back.")
    ] = None,
    reference: a.References = None,
    revision: a.Revision = None,
    iteration: a.PickIteration = None,
    layout: a.ReadLayout = None,
    experts_form: a.ExpertsForm = None,
    make_vocab_size_divisible_by: a.ReadDivisor = None,
    values: Annotated[
        bool,
        typer.Option(
            "--values",
            metavar="",
            help="Accept other dtypes where the values are equal after exact widening.",
            rich_help_panel=a.TRUST,
        ),
    ] = False,
    witness: Annotated[
        Literal["megatron-core", "transformers"] | None,
        typer.Option(
            metavar="LIB",
            help="Have A read by that library, too, and compare: megatron-core (it unpickles: only for checkpoints you trust) or transformers.",
            rich_help_panel=a.TRUST,
        ),
    ] = None,
    trust_reference: a.TrustReference = False,
    on_disk: Annotated[
        str | None,
        typer.Option(
            metavar="[DIR]",
            help="Really write both ways, in a temporary directory in DIR, or beside A; give it after A. Left out: in memory.",
            rich_help_panel=a.RUN,
        ),
    ] = None,
    dry_run: a.DryRun = False,
    threads: a.Threads = None,
    as_json: a.Json = False,
    quiet: a.Quiet = False,
    debug: a.Debug = False,
) -> None:
    """Compare two checkpoints element by element, or one with what comes back from a round trip.

    Nothing is written. Equality is of bits. A round trip proves that nothing is lost, and nothing about the layout:
    for that compare with the other side, or call a witness.
    """
    from vlconv import converters

    options = converters.VerifyOptions(
        references=tuple(reference or ()),
        revision=revision,
        iteration=iteration,
        layout=layout,
        make_vocab_size_divisible_by=make_vocab_size_divisible_by,
        experts_form=experts_form,
        witness=witness,
        on_disk=None if on_disk is None else Path(on_disk) if on_disk else a_side.absolute().parent,
        values=values,
        trust_reference=trust_reference,
        dry_run=dry_run,
        threads=threads,
    )
    code = run(
        "verify",
        lambda see: converters.verify(a_side, b_side, options, see),
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        debug=debug,
    )
    raise typer.Exit(code)
