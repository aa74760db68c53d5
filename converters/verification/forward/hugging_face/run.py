"""transformers asked, in a process of its own, for the logits of a Hugging Face directory."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

from ...witnesses import foreign
from ..child import NO_GPU, run_child
from .way import PLAIN

LIBRARY = "transformers"
CHILD = f"{__package__}.child"
DOES = f"runs {LIBRARY}"

Faults = dict[str, tuple[int, list[str]]]
"""By kind, how many tensors transformers misses in the files or has no use for, and the names of some."""


def version() -> str:
    """What runs: "transformers 5.2.0". Raises NotComparable: it, or torch, is not installed."""
    foreign.version("torch")
    return f"{LIBRARY} {foreign.version(LIBRARY)}"


def device_memory(device: str) -> int:
    """Free bytes of a GPU's memory. Raises NotComparable: there is none."""
    return int(_ask({"device": device})["free"])


def logits_of(
    directory: Path,
    batch: Path,
    parts: Sequence[str],
    folder: Path,
    *,
    tower: bool,
    dtype: str,
    device: str,
    ways: Sequence[str] = (PLAIN,),
) -> Faults:
    """Run a model; its logits are then in `folder`, under `file_of` each.

    Args:
        directory: with config.json and safetensors weights.
        batch: a file that Batch.save wrote.
        parts: of the batch: "text", "images".
        folder: to write to.
        tower: the model has a vision tower.
        dtype, device: to compute in, and on.
        ways: in which it is computed, one after the other.

    Returns:
        what does not fit of the files; nothing was run then.

    Raises:
        NotComparable: transformers fails, or its process died.
    """
    answer = _ask(
        {
            "directory": str(directory.absolute()),
            "batch": str(batch),
            "tower": tower,
            "dtype": dtype,
            "device": device,
            "runs": {way: {part: str(file_of(folder, way, part)) for part in parts} for way in ways},
        },
        {"TMPDIR": str(folder)},  # what libraries leave there goes with it
    )
    return {kind: (count, names) for kind, (count, names) in answer["faults"].items()}


def file_of(folder: Path, way: str, part: str) -> Path:
    """Where the logits of a part of the batch are, float32 [sequences, tokens, vocabulary]."""
    return folder / f"{way}-{part}.npy"


def _ask(asked: Mapping[str, Any], environment: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    def feed(stdin: IO[bytes]) -> None:
        stdin.write(json.dumps(asked).encode() + b"\n")

    hidden = NO_GPU if asked["device"] == "cpu" else {}
    return run_child(CHILD, feed, does=DOES, environment={**environment, **hidden})
