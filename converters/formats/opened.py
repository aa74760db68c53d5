"""What opening a Megatron checkpoint gives, whatever its format."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .chunks import ChunkReader


@dataclass(slots=True)
class Opened:
    """An open checkpoint.

    Attributes:
        format: Megatron's name for it, as `--ckpt-format` takes it.
        directory: the folder that holds the files.
        reader: the model's tensors under canonical names (see keys.py), whatever prefix the trainer put before them.
        ignored: what else is in there: kind -> number of entries.
        form: how the layers are keyed, in words.
        args: reads what the checkpoint states of itself: names as in Megatron's args; {} when it states nothing.
    """

    format: str
    directory: Path
    reader: ChunkReader
    ignored: dict[str, int] = field(default_factory=dict)
    form: str = ""
    args: Callable[[], dict[str, Any]] = dict
