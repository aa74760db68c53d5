"""vlconv push."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlconv import converters
from vlconv.arguments import with_options

EXAMPLES = """[bold]Examples[/bold]

[dim]# what mcore2hf --push does once its output stands[/dim]

vlconv push Qwen3-VL-mine my-org/Qwen3-VL-mine
"""


@with_options(converters.PushOptions)
def push(
    source: Annotated[Path, typer.Argument(metavar="HF", help="Hugging Face directory that mcore2hf wrote.")],
    repo: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Repository; made, and private, if not there.")],
    options: converters.PushOptions,
    observer: converters.Observer,
) -> converters.Report:
    """Upload an output of mcore2hf to the Hub, in one commit.

    Every file is held against vlconv.json first. The main branch is as it was or has the whole model, whatever happens
    on the way, and what was sent already is not sent again.
    """
    return converters.push(source, repo, options, observer)
