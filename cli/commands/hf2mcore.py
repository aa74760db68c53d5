"""vlconv hf2mcore."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vlconv import converters
from vlconv.arguments import with_options

EXAMPLES = """[bold]Examples[/bold]

[dim]# what Megatron-LM's --load takes, at any parallel sizes[/dim]

vlconv hf2mcore Qwen3-VL-8B-Instruct checkpoints

[dim]# rank files of the legacy format, for TP 4 x PP 2, the vocabulary padded as Megatron-LM pads it[/dim]

vlconv hf2mcore Qwen3-VL-8B-Instruct checkpoints --format torch --tp 4 --pp 2 --make-vocab-size-divisible-by 128

[dim]# an adapter (LoRA) of peft, for Megatron-Bridge[/dim]

vlconv hf2mcore my-adapter checkpoints --adapter --base Qwen3-VL-8B-Instruct
"""


@with_options(converters.Hf2McoreOptions)
def hf2mcore(
    source: Annotated[
        str,
        typer.Argument(
            metavar="HF",
            help="Hugging Face directory: config.json and safetensors; or org/name\\[@revision] on the Hub, fetched "
            "into its cache, for a dry run too. With --adapter a PEFT directory.",
        ),
    ],
    target: Annotated[
        Path, typer.Argument(metavar="MCORE", help="Directory to write. It appears when it is complete.")
    ],
    options: converters.Hf2McoreOptions,
    observer: converters.Observer,
) -> converters.Report:
    """Convert a Hugging Face directory to a Megatron checkpoint.

    torch_dist, the default, loads at any parallel sizes. config.json and the tokenizer files go along, so that the way
    back needs no --reference.
    """
    return converters.hf2mcore(source, target, options, observer)
