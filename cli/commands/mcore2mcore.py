"""vlconv mcore2mcore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlconv import converters
from vlconv.arguments import with_options

EXAMPLES = """[bold]Examples[/bold]

[dim]# legacy rank files to what loads at any parallel sizes[/dim]

vlconv mcore2mcore checkpoints/iter_0001000 resharded

[dim]# for another topology[/dim]

vlconv mcore2mcore checkpoints resharded --format torch --tp 8 --pp 4

[dim]# in another trainer's names[/dim]

vlconv mcore2mcore checkpoints relaid --as-layout pai
"""


@with_options(converters.Mcore2McoreOptions)
def mcore2mcore(
    source: Annotated[
        Path, typer.Argument(metavar="FROM", help="Megatron checkpoint of any format, or the directory above it.")
    ],
    target: Annotated[Path, typer.Argument(metavar="TO", help="Directory to write. It appears when it is complete.")],
    options: converters.Mcore2McoreOptions,
    observer: converters.Observer,
) -> converters.Report:
    """Write a Megatron checkpoint's weights in another format, topology or layout.

    Weights only: optimizer, scheduler and random states stay behind. Nothing passes through a Hugging Face directory on
    disk.
    """
    return converters.mcore2mcore(source, target, options, observer)
