"""vlconv mcore2hf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlconv import converters
from vlconv.arguments import with_options

EXAMPLES = """[bold]Examples[/bold]

[dim]# recognise, check and plan, but write nothing[/dim]

vlconv mcore2hf checkpoints/iter_0001000 Qwen3-VL-mine --dry-run

[dim]# config and tokenizer files from a directory of your own[/dim]

vlconv mcore2hf checkpoints Qwen3-VL-mine --reference Qwen3-VL-8B-Instruct --iteration 1000

[dim]# as bfloat16, in files of at most 2 GB, with a JSON summary[/dim]

vlconv mcore2hf checkpoints Qwen3-VL-mine --dtype bf16 --max-shard-size 2GB --json

[dim]# an adapter (LoRA) that was saved alone, merged into the model that it changes[/dim]

vlconv mcore2hf adapter/iter_0001000 Qwen3-VL-mine --base Qwen3-VL-8B-Instruct

[dim]# the same as a directory of peft, nothing merged[/dim]

vlconv mcore2hf adapter/iter_0001000 my-adapter --adapter --base Qwen3-VL-8B-Instruct
"""


@with_options(converters.Mcore2HfOptions)
def mcore2hf(
    source: Annotated[
        Path,
        typer.Argument(metavar="MCORE", help="Megatron checkpoint: the directory with .metadata, or one above it."),
    ],
    target: Annotated[Path, typer.Argument(metavar="HF", help="Directory to write. It appears when it is complete.")],
    options: converters.Mcore2HfOptions,
    observer: converters.Observer,
) -> converters.Report:
    """Convert a Megatron checkpoint to a Hugging Face directory.

    The model, the trainer's naming and the parallel sizes are recognised from the checkpoint; the summary says what was
    recognised, and from what.
    """
    return converters.mcore2hf(source, target, options, observer)
