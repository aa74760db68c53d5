"""The command line: its commands, each in a file of its own."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vlconv import __version__, job
from vlconv.commands import hf2mcore, inspect, mcore2hf, mcore2mcore, names, push, repair, verify
from vlconv.group import Commands
from vlconv.helped import Helped
from vlconv.renamed import renamed

app = typer.Typer(
    name="vlconv",
    cls=Commands,
    help="Convert Qwen checkpoints between Megatron and Hugging Face, and prove that nothing was lost.",
    epilog="Every command has examples: vlconv help mcore2hf",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Parse, call, exit."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that knows no … shows \\u2026 instead of ending the run
            stream.reconfigure(errors="backslashreplace")
    job.mute()
    app(prog_name="vlconv")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vlconv {__version__}")
        raise typer.Exit


@app.callback()
def _vlconv(
    version: Annotated[
        bool,
        typer.Option(
            "--version", "-V", callback=_version, is_eager=True, metavar="", help="Show the version and exit."
        ),
    ] = False,
) -> None:
    pass


WRITES = {"--layout": "--as-layout", "--iteration": "--as-iteration"}
READS = {"--from-layout": "--layout", "--from-iteration": "--iteration"}

app.command(cls=Helped, epilog=inspect.EXAMPLES)(inspect.inspect)
app.command(cls=Helped, epilog=mcore2hf.EXAMPLES)(mcore2hf.mcore2hf)
app.command(cls=renamed(WRITES), epilog=hf2mcore.EXAMPLES)(hf2mcore.hf2mcore)
app.command(cls=verify.Verify, epilog=verify.EXAMPLES)(verify.verify)
app.command(cls=Helped, epilog=repair.EXAMPLES)(repair.repair)
app.command(cls=renamed(READS), epilog=mcore2mcore.EXAMPLES)(mcore2mcore.mcore2mcore)
app.command(cls=Helped, epilog=push.EXAMPLES)(push.push)
app.command(cls=Helped, epilog=names.EXAMPLES)(names.names)
