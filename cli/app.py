"""The commands: parse, call, render."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from vlconv import __version__
from vlconv import arguments as a
from vlconv.run import run

# vlconv.converters is imported inside the commands: `vlconv --help` must not wait for numpy.

app = typer.Typer(
    name="vlconv",
    help="Convert Qwen-VL checkpoints between Megatron and Hugging Face, and prove that nothing was lost.",
    epilog="Every command has examples: vlconv mcore2hf --help",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """The console script."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows no … shows \\u2026 instead of ending the run
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="vlconv")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vlconv {__version__}")
        raise typer.Exit


@app.callback()
def _vlconv(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, metavar="", help="Show the version and exit.")] = False,
) -> None:
    pass


MCORE2HF = """[bold]Examples[/bold]

[dim]# recognise, check and plan, but write nothing[/dim]

vlconv mcore2hf checkpoints/iter_0001000 Qwen3-VL-mine --dry-run

[dim]# config and tokenizer files from a directory of your own[/dim]

vlconv mcore2hf checkpoints Qwen3-VL-mine --reference Qwen3-VL-8B-Instruct --iteration 1000

[dim]# as bfloat16, in files of at most 2 GB, with a JSON summary[/dim]

vlconv mcore2hf checkpoints Qwen3-VL-mine --dtype bf16 --max-shard-size 2GB --json
"""


@app.command(epilog=MCORE2HF)
def mcore2hf(
    source: Annotated[Path, typer.Argument(metavar="MCORE", help="Megatron checkpoint: the directory with .metadata, or one above it.")],
    target: Annotated[Path, typer.Argument(metavar="HF", help="Directory to write. It appears when it is complete.")],
    reference: a.Reference = None,
    revision: a.Revision = None,
    iteration: a.PickIteration = None,
    layout: a.ReadLayout = None,
    make_vocab_size_divisible_by: a.ReadDivisor = None,
    dtype: a.Dtype = None,
    max_shard_size: a.MaxShardSize = "5GB",  # type: ignore[assignment]  # typer parses the default, too
    experts: Annotated[
        Literal["hub", "per-expert"], typer.Option(metavar="FORM", help="How experts are written: hub or per-expert.", rich_help_panel=a.OUTPUT)
    ] = "hub",
    hf_names: Annotated[
        Literal["old", "new"], typer.Option(metavar="old|new", help="Prefixes of Qwen2.5-VL; everything reads the old ones.", rich_help_panel=a.OUTPUT)
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

    The model, the trainer's naming and the parallel sizes are recognised from the checkpoint; the summary says what was recognised, and from what.
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
    code = run("mcore2hf", lambda see: converters.mcore2hf(source, target, options, see), dry_run=dry_run, as_json=as_json, quiet=quiet, debug=debug)
    raise typer.Exit(code)


HF2MCORE = """[bold]Examples[/bold]

[dim]# what Megatron-LM's --load takes, at any parallel sizes[/dim]

vlconv hf2mcore Qwen3-VL-8B-Instruct checkpoints

[dim]# a vocabulary padded for --make-vocab-size-divisible-by 128 at tensor-parallel size 4[/dim]

vlconv hf2mcore Qwen3-VL-8B-Instruct checkpoints --make-vocab-size-divisible-by 512
"""


@app.command(epilog=HF2MCORE)
def hf2mcore(
    source: Annotated[Path, typer.Argument(metavar="HF", help="Hugging Face directory: config.json and safetensors.")],
    target: Annotated[Path, typer.Argument(metavar="MCORE", help="Directory to write. It appears when it is complete.")],
    experts_form: a.ExpertsForm = None,
    layout: Annotated[
        str | None, typer.Option(metavar="NAME", help="The trainer's naming to write. Left out: the usual one of the model.", rich_help_panel=a.OUTPUT)
    ] = None,
    make_vocab_size_divisible_by: a.WriteDivisor = None,
    dtype: a.Dtype = None,
    iteration: Annotated[
        int | None,
        typer.Option(
            parser=a.parse_positive, metavar="N", help="Write iter_N instead of release, which trainers read as converted weights.", rich_help_panel=a.OUTPUT
        ),
    ] = None,
    overwrite: a.Overwrite = False,
    strict: a.Strict = False,
    dry_run: a.DryRun = False,
    threads: a.Threads = None,
    as_json: a.Json = False,
    quiet: a.Quiet = False,
    debug: a.Debug = False,
) -> None:
    """Convert a Hugging Face directory to a Megatron checkpoint (torch_dist).

    It loads at any tensor, pipeline and data parallel sizes. config.json and the tokenizer files go along, so that the way back needs no --reference.
    """
    from vlconv import converters

    options = converters.Hf2McoreOptions(
        layout=layout,
        make_vocab_size_divisible_by=make_vocab_size_divisible_by,
        dtype=dtype,
        iteration=iteration,
        experts_form=experts_form,
        overwrite=overwrite,
        dry_run=dry_run,
        strict=strict,
        threads=threads,
    )
    code = run("hf2mcore", lambda see: converters.hf2mcore(source, target, options, see), dry_run=dry_run, as_json=as_json, quiet=quiet, debug=debug)
    raise typer.Exit(code)


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


class _Verify(TyperCommand):
    """`--on-disk` takes a directory or nothing, which typer has no word for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        bare = [i for i, arg in enumerate(args) if arg == "--on-disk" and (i + 1 == len(args) or args[i + 1].startswith("-"))]
        return super().parse_args(ctx, ["--on-disk=" if i in bare else arg for i, arg in enumerate(args)])


@app.command(cls=_Verify, epilog=VERIFY)
def verify(
    a_side: Annotated[Path, typer.Argument(metavar="A", help="Megatron checkpoint or Hugging Face directory.")],
    b_side: Annotated[Path | None, typer.Argument(metavar="B", help="The other side. Left out: A is converted there and back.")] = None,
    reference: a.References = None,
    revision: a.Revision = None,
    iteration: a.PickIteration = None,
    layout: a.ReadLayout = None,
    experts_form: a.ExpertsForm = None,
    make_vocab_size_divisible_by: a.ReadDivisor = None,
    values: Annotated[
        bool, typer.Option("--values", metavar="", help="Accept other dtypes where the values are equal after exact widening.", rich_help_panel=a.TRUST)
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
    code = run("verify", lambda see: converters.verify(a_side, b_side, options, see), dry_run=dry_run, as_json=as_json, quiet=quiet, debug=debug)
    raise typer.Exit(code)
