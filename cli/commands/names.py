"""vlconv names."""

from __future__ import annotations

from typing import Annotated

import typer

from vlconv import converters
from vlconv.helped import complete_layout
from vlconv.render import print_lines

EXAMPLES = """[bold]Examples[/bold]

[dim]# where the query projection of layer 3 goes[/dim]

vlconv names --layout mbridge --model qwen3_vl | grep layers.3.self_attn.q_proj
"""


def names(
    layout: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The trainer's naming, as --layout of the other commands; listed below.",
            autocompletion=complete_layout,
        ),
    ],
    model: Annotated[
        str, typer.Option(metavar="MODEL", help="A model_type such as qwen3_vl, or a release such as Qwen3-VL-8B.")
    ],
) -> None:
    """Print both full names of every pair of tensors that a layout maps.

    One line each, tab-separated: Megatron's name and shape, Hugging Face's name and shape, and = for the same tensor,
    -1 for one that Megatron holds minus one, T for one whose last two axes are exchanged, or the number of boxes that
    they share. Nothing is read.
    """
    try:
        pairs = converters.names(layout, model)
    except converters.VlconvError as error:
        raise typer.BadParameter(str(error)) from error
    print_lines("\t".join((p.mcore, str(list(p.mcore_shape)), p.hf, str(list(p.hf_shape)), p.how)) for p in pairs)
