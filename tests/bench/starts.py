"""Starting times, and planning of a model with very many chunks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from . import checkout, geometry, making, process
from .rounds import Say, repeated

TIMES = 9
TP = 8
"""94 layers of 128 experts at TP8, gate and up apart: 300 thousand chunks."""


def starts(folder: Path, times: int, say: Say) -> list[dict[str, Any]]:
    """Runs of commands that move nothing, each several times; of a checkpoint of some hundred kilobytes."""
    made = making.make(folder, geometry.tiny(), megatron=False)
    commands = {
        "vlconv --help": checkout.vlconv("--help"),
        "vlconv mcore2hf --dry-run": checkout.vlconv("mcore2hf", made.mcore, folder / "out", "--dry-run"),
        "vlconv verify A B --dry-run": checkout.vlconv("verify", made.mcore, made.hf, "--dry-run"),
    }
    found = []
    for name, command in commands.items():
        process.measure(command)  # bytecode and pages are there from now on
        found.append({"name": name, "runs": [run._asdict() for run in repeated(command, times)]})
        say(f"  {name}: {min(run['seconds'] for run in found[-1]['runs']):.2f} s")  # type: ignore[attr-defined]
    return found


def planning(folder: Path, tp: int, times: int, say: Say) -> dict[str, Any]:
    """mcore2hf --dry-run of the 235B model's layers, experts and chunks, each of next to no bytes."""
    made = making.make(folder, geometry.tiny_235b(), megatron=False)
    source, counts = chunked(made, tp)
    runs = repeated(checkout.vlconv("mcore2hf", source, folder / "out", "--dry-run"), times)
    say(f"  planning {counts['chunks']} chunks: {min(run.seconds for run in runs):.2f} s")
    tensors = len(geometry.specs(made.config))
    return {"tp": tp, "tensors": tensors, **counts, "runs": [run._asdict() for run in runs]}


def chunked(made: making.Made, tp: int) -> tuple[Path, dict[str, int]]:
    """A model's torch_dist checkpoint as of `tp` ranks, beside its Hugging Face directory; and its counts."""
    target = made.hf.parent / f"tp{tp}"
    process.measure(checkout.module("bench.chunked", made.mcore, target, tp))
    return target, json.loads(target.with_suffix(".json").read_text())
