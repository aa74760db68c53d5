"""The command line of the bench."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import checkout, comparisons, curves, geometry

PARTS = (*comparisons.NAMES, "starts", "planning")
NAMED_CURVES = "bytes, threads, tensors, chunks, files: some of these, or all if none is named"


@dataclass(frozen=True)
class Asked:
    """What is to be measured; see `parser`."""

    model: str
    layers: int | None
    quick: bool
    pairs: int
    rival_pairs: int
    rivals: bool
    cold: bool
    threads: tuple[int, ...]
    only: tuple[str, ...]
    curves: tuple[str, ...]
    work: Path
    out: Path


def asked(arguments: Sequence[str] | None = None) -> Asked:
    """Parse; None: this process's own arguments."""
    values = vars(parser().parse_args(arguments))
    values["pairs"] = values["pairs"] or (2 if values["quick"] else 5)
    values["rival_pairs"] = values["rival_pairs"] or (values["pairs"] + 1) // 2
    values["only"] = values["only"] if values["only"] is not None else PARTS
    return Asked(**values)


def parser() -> argparse.ArgumentParser:
    """Its options."""
    made = argparse.ArgumentParser(prog="python -m bench", description="Speed and memory of vlconv; see docs/bench.md.")
    add = made.add_argument
    add("--model", choices=geometry.MODELS, default="2b", help="2b: Qwen3-VL-2B, 4.26 GB. moe: Qwen3-VL-30B-A3B")
    add("--layers", type=_positive, help="layers of its language model; moe: 6 if not said, 9.8 GB")
    add("--quick", action="store_true", help="a smaller model and fewer runs: two minutes on two cores")
    add("--pairs", type=_positive, help="rounds of each comparison: 5, or 2 with --quick")
    add("--rival-pairs", type=_positive, help="of them with other programs: half of them if not said")
    add("--no-rivals", dest="rivals", action="store_false", help="without other programs")
    add("--cold", action="store_true", help="each comparison once more, the sources out of the page cache")
    add("--threads", type=_numbers, default=(), metavar="1,2,4", help="vlconv with so many threads, too")
    add("--only", type=_some(PARTS), metavar="NAMES", help=f"some of {', '.join(PARTS)}; none: ''")
    grown = {"nargs": "?", "const": curves.NAMES, "default": ()}
    add("--curves", type=_some(curves.NAMES), metavar="NAMES", help=f"how it grows with {NAMED_CURVES}", **grown)
    add("--work", type=_directory, default=tempfile.gettempdir(), help="where the files are made, and removed")
    add("--out", type=Path, default=checkout.ROOT / "build" / "bench", help="where bench.json and the plots go")
    return made


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
    return int(text)


def _directory(text: str) -> Path:
    if not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text!r} is no directory")
    return Path(text).resolve()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(_positive, text.split(",")))


def _some(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    """What parses some of these, between commas."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(filter(None, text.split(",")))
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(known)}")
        return found

    return names
