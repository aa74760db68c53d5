"""The arguments that commands share, and how their text becomes values. What an option means is written here once."""

from __future__ import annotations

import re
from typing import Annotated, Literal

import typer

DTYPES = {
    "bfloat16": "bfloat16",
    "float16": "float16",
    "float32": "float32",
    "bf16": "bfloat16",
    "fp16": "float16",
    "fp32": "float32",
}

UNITS = {
    "": 1,
    "B": 1,
    **{f"{p}B": 1000**n for n, p in enumerate("KMGT", 1)},
    **{f"{p}IB": 1024**n for n, p in enumerate("KMGT", 1)},
}


def parse_dtype(text: str) -> str:
    """A dtype by its name or its short name: "bf16" -> "bfloat16"."""
    if text.lower() not in DTYPES:
        raise typer.BadParameter(f"{text!r} is none of {', '.join(DTYPES)}")
    return DTYPES[text.lower()]


def parse_size(text: str) -> int:
    """A size in bytes: "5GB" -> 5000000000, "2GiB" -> 2147483648, "1000" -> 1000."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]*)\s*", text)
    if not match or match[2].upper() not in UNITS or not float(match[1]):
        raise typer.BadParameter(f"{text!r} is no size such as 5GB, 500MB or 2GiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def parse_number(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is no whole number")
    return int(text)


def parse_positive(text: str) -> int:
    """A whole number from 1 on."""
    if not parse_number(text):
        raise typer.BadParameter("0 is too small")
    return int(text)


MODEL, OUTPUT, TRUST, RUN = "About the checkpoint", "About the output", "What to believe", "About the run"

Reference = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Hugging Face directory, or hub id, with the config.json and tokenizer files of this model. Weights are never fetched. "
        "Left out: the directory 'huggingface' inside the checkpoint, beside it or one above it; else what the checkpoint itself states and shows.",
        rich_help_panel=MODEL,
    ),
]
References = Annotated[
    list[str] | None,
    typer.Option(
        "--reference",
        metavar="DIR",
        help="Hugging Face directory, or hub id, with the config.json of a Megatron side; give it twice where two Megatron sides need different ones.",
        rich_help_panel=MODEL,
    ),
]
Revision = Annotated[
    str | None, typer.Option(metavar="REV", help="Branch, tag or commit of a hub id.", rich_help_panel=MODEL)
]
PickIteration = Annotated[
    int | None,
    typer.Option(
        parser=parse_number,
        metavar="N",
        help="Which iteration to read where the directory holds several.",
        rich_help_panel=MODEL,
    ),
]
ReadLayout = Annotated[
    str | None,
    typer.Option(
        "--layout", metavar="NAME", help="The trainer's naming. Left out: recognised, and said.", rich_help_panel=MODEL
    ),
]
ExpertsForm = Annotated[
    Literal["hub", "transformers-5", "per-expert"] | None,
    typer.Option(
        metavar="FORM",
        help="How the Hugging Face side lays out its experts: hub, transformers-5 or per-expert. Only asked for where their shapes are square and cannot tell.",
        rich_help_panel=MODEL,
    ),
]
ReadDivisor = Annotated[
    int | None,
    typer.Option(
        "--make-vocab-size-divisible-by",
        parser=parse_positive,
        metavar="N",
        help="The value the trainer was given: explains padding of the vocabulary that multiples of 128 do not explain.",
        rich_help_panel=MODEL,
    ),
]
WriteDivisor = Annotated[
    int | None,
    typer.Option(
        "--make-vocab-size-divisible-by",
        parser=parse_positive,
        metavar="N",
        help="Pad the vocabulary to a multiple of N, or of N x TP where a topology is given, as Megatron does. Left out: not padded.",
        rich_help_panel=OUTPUT,
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        parser=parse_dtype,
        metavar="DTYPE",
        help="Cast all weights to bfloat16, float16 or float32 (bf16, fp16, fp32 too). Left out: kept as they are.",
        rich_help_panel=OUTPUT,
    ),
]
MaxShardSize = Annotated[
    int,
    typer.Option(
        parser=parse_size,
        metavar="SIZE",
        help="Largest safetensors file, such as 500MB or 2GiB.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        metavar="",
        help="Replace an existing target, in one step, once the new one is complete.",
        rich_help_panel=OUTPUT,
    ),
]
TrustReference = Annotated[
    bool,
    typer.Option(
        "--trust-reference",
        metavar="",
        help="Let the reference win where the checkpoint's own arguments contradict it. The summary records it.",
        rich_help_panel=TRUST,
    ),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        metavar="",
        help="Refuse NaN and infinite weights, and ranks that disagree, instead of naming them.",
        rich_help_panel=TRUST,
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", metavar="", help="Recognise, check and plan; write nothing.", rich_help_panel=RUN)
]
Threads = Annotated[
    int | None,
    typer.Option(
        parser=parse_positive,
        metavar="N",
        help="Threads that move data. Left out: chosen by the number of cores.",
        rich_help_panel=RUN,
    ),
]
Json = Annotated[
    bool,
    typer.Option(
        "--json", metavar="", help="Print one JSON document to stdout, everything else to stderr.", rich_help_panel=RUN
    ),
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", metavar="", help="Say nothing but warnings and errors.", rich_help_panel=RUN)
]
Debug = Annotated[
    bool, typer.Option("--debug", metavar="", help="Show the traceback of an error.", rich_help_panel=RUN)
]
