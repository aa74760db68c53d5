"""vlconv mcore2hf."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vlconv import arguments as a
from vlconv.run import run

# vlconv.converters is imported inside the command: `vlconv --help` must not wait for numpy.

MCORE2HF = """[bold]Examples[/bold]

[dim]# recognise, check and plan, but write nothing[/dim]

vlconv mcore2hf checkpoints/iter_0001000 Qwen3-VL-mine --dry-run

[dim]# config and tokenizer files from a directory of your own[/dim]

vlconv mcore2hf checkpoints Qwen3-VL-mine --reference Qwen3-VL-8B-Instruct --iteration 1000

[dim]# as bfloat16, in files of at most 2 GB, with a JSON summary[/dim]

vlconv mcore2hf checkpoints Qwen3-VL-mine --dtype bf16 --max-shard-size 2GB --json
"""


def mcore2hf(
    source: Annotated[
        Path,
        typer.Argument(metavar="MCORE", help="Megatron checkpoint: the directory with .metadata, or one above it."),
    ],
    target: Annotated[Path, typer.Argument(metavar="HF", help="Directory to write. It appears when it is complete.")],
    reference: a.Reference = None,
    revision: a.Revision = None,
    iteration: a.PickIteration = None,
    layout: a.ReadLayout = None,
    make_vocab_size_divisible_by: a.ReadDivisor = None,
    dtype: a.Dtype = None,
    max_shard_size: a.MaxShardSize = "5GB",  # type: ignore[assignment]  # typer parses the default, too
    experts: Annotated[
        Literal["hub", "per-expert"],
        typer.Option(metavar="FORM", help="How experts are written: hub or per-expert.", rich_help_panel=a.OUTPUT),
    ] = "hub",
    hf_names: Annotated[
        Literal["old", "new"],
        typer.Option(
            metavar="old|new", help="Prefixes of Qwen2.5-VL; everything reads the old ones.", rich_help_panel=a.OUTPUT
        ),
    ] = "old",
    overwrite: a.Overwrite = False,
    trust_reference: a.TrustReference = False,
    strict: a.Strict = False,
    dry_run: a.DryRun = False,
    threads: a.Threads = None,
    as_json: a.Json = False,
    quiet: a.Quiet = False,
    debug: a.Debug = False,
) -> None:
    """Convert a Megatron checkpoint to a Hugging Face directory.

    The model, the trainer's naming and the parallel sizes are recognised from the checkpoint; the summary says what was
    recognised, and from what.
    """
    from vlconv import converters

    options = converters.Mcore2HfOptions(
        reference=reference,
        revision=revision,
        iteration=iteration,
        layout=layout,
        dtype=dtype,
        make_vocab_size_divisible_by=make_vocab_size_divisible_by,
        max_shard_size=max_shard_size,
        trust_reference=trust_reference,
        experts=experts,
        hf_names=hf_names,
        overwrite=overwrite,
        dry_run=dry_run,
        strict=strict,
        threads=threads,
    )
    code = run(
        "mcore2hf",
        lambda see: converters.mcore2hf(source, target, options, see),
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        debug=debug,
    )
    raise typer.Exit(code)
