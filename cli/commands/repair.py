"""vlconv repair."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlconv import converters
from vlconv.arguments import with_options

EXAMPLES = """[bold]Examples[/bold]

[dim]# what another tool mixed up, as the checkpoint shows that it was exported from[/dim]

vlconv repair exported repaired --like checkpoints

[dim]# the vision tower's q, k and v as Pai-Megatron-Patch exports them from two ranks[/dim]

vlconv repair exported repaired --undo vision-qkv-tp2-as-flat
"""


@with_options(converters.RepairOptions)
def repair(
    source: Annotated[Path, typer.Argument(metavar="HF", help="Hugging Face directory that another tool wrote.")],
    target: Annotated[Path, typer.Argument(metavar="REPAIRED", help="Directory to write. It appears when complete.")],
    options: converters.RepairOptions,
    observer: converters.Observer,
) -> converters.Report:
    """Undo what mixed numbers up in a Hugging Face directory: a known permutation, as verify names it.

    Only what fits exactly, and alone, is undone; all else is refused. Every other number, every header and every file
    stays byte for byte as it is.
    """
    return converters.repair(source, target, options, observer)
