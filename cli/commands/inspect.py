"""vlconv inspect."""

from __future__ import annotations

from typing import Annotated

import typer

from vlconv import converters
from vlconv.helped import complete_layout
from vlconv.inspected import show
from vlconv.render import Screen
from vlconv.run import carry_out

EXAMPLES = """[bold]Examples[/bold]

[dim]# what is this, does it convert, and with which command[/dim]

vlconv inspect checkpoints

[dim]# one iteration of a save directory[/dim]

vlconv inspect checkpoints:1000

[dim]# names, dtypes, shapes and bytes of the tensors of layer 3[/dim]

vlconv inspect checkpoints --tensors '*.layers.3.*'

[dim]# for a program[/dim]

vlconv inspect checkpoints --json | jq .dtypes
"""


def inspect(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH",
            help="Megatron checkpoint, Hugging Face directory, or a save directory; SAVE:100 for an iteration.",
        ),
    ],
    tensors: Annotated[
        str | None,
        typer.Option(metavar="PATTERN", help="List the tensors whose name matches, such as '*.layers.3.*'."),
    ] = None,
    iteration: Annotated[
        int | None, typer.Option(metavar="N", help="Which iteration, where the directory holds several.")
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The trainer's naming, listed below. Left out: recognised, and said.",
            autocompletion=complete_layout,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print one JSON document, with all tensors or those that match.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.")] = False,
) -> None:
    """Say what a directory is, whether it converts, and how to go on.

    Needs no reference, writes nothing and reads no tensor. What is incomplete or foreign is described, too.
    """

    def call(observer: converters.Observer) -> converters.Inspection:
        return converters.inspect(path, converters.InspectOptions(iteration=iteration, layout=layout))

    def told(found: converters.Inspection) -> int:
        show(found, tensors, as_json=as_json)
        return 0

    raise typer.Exit(carry_out("inspect", call, told, Screen(as_json=as_json), debug=debug))
