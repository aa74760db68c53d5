"""A path that is not what was asked for, told by what it is: the other side's, or something inside a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ...errors import NotACheckpoint, shown_path
from ..open_files import is_dir, is_file
from ..safetensors import holds as is_model

Holds = Callable[[Path], bool]

NEAR = 3
"""Folders above a path in which a checkpoint may lie that it belongs to."""

CONFIG = "config.json"

ADAPTER = "adapter_config.json"


def taken_for_mcore(path: Path, holds: Holds) -> NotACheckpoint | None:
    """What a path is that was given as a Megatron checkpoint and is none; None where it shows nothing.

    Args:
        path: what the user gave; it holds no checkpoint.
        holds: whether a directory is a checkpoint or a save directory.
    """
    if _is_hf(path):
        return NotACheckpoint(
            f"{shown_path(path)}: no Megatron checkpoint there, but a Hugging Face model",
            f"hf2mcore converts in that direction: vlconv hf2mcore {shown_path(path)} MCORE",
        )
    if is_dir(path) and is_file(path / ADAPTER):
        return NotACheckpoint(
            f"{shown_path(path)}: no Megatron checkpoint there, but a PEFT adapter",
            f"hf2mcore converts in that direction: vlconv hf2mcore {shown_path(path)} MCORE --adapter",
        )
    for above in _above(path):
        if holds(above):
            return NotACheckpoint(
                f"{shown_path(path)}: {_kind(path)} a Megatron checkpoint, not the checkpoint",
                f"Give {shown_path(above)}.",
            )
        if not is_dir(path) and _is_hf(above):
            return NotACheckpoint(
                f"{shown_path(path)}: a file of a Hugging Face model, no Megatron checkpoint",
                f"hf2mcore converts in that direction: vlconv hf2mcore {shown_path(above)} MCORE",
            )
    return None


def taken_for_hf(path: Path, holds: Holds) -> NotACheckpoint | None:
    """What a path is that was given as a Hugging Face directory and is none; None where it shows nothing.

    Args:
        path: what the user gave.
        holds: as above.
    """
    if is_dir(path):
        if not is_model(path) and holds(path):
            return _other_way(path, path)
        if not is_model(path) and is_file(path / ADAPTER):
            return NotACheckpoint(
                f"{shown_path(path)}: a PEFT adapter, no model",
                "Convert it with --adapter, and with --base where that says which model it changes.",
            )
    elif is_file(path):
        for above in _above(path):
            if _is_hf(above):
                return NotACheckpoint(
                    f"{shown_path(path)}: a file of a Hugging Face model, not its directory",
                    f"Give {shown_path(above)}.",
                )
            if holds(above):
                return _other_way(path, above)
    return None


def _other_way(path: Path, checkpoint: Path) -> NotACheckpoint:
    inside = "" if path == checkpoint else f"a file of {shown_path(checkpoint)}, "
    return NotACheckpoint(
        f"{shown_path(path)}: {inside}a Megatron checkpoint, no Hugging Face model",
        f"mcore2hf converts in that direction: vlconv mcore2hf {shown_path(checkpoint)} HF",
    )


def _kind(path: Path) -> str:
    return "lies inside" if is_dir(path) else "a file of"


def _is_hf(path: Path) -> bool:
    return is_dir(path) and is_file(path / CONFIG) and is_model(path)


def _above(path: Path) -> Iterator[Path]:
    """The folders that a path lies in, the nearest first, as the user would write them."""
    whole = path.absolute().parents
    spelled = [above for above in path.parents if above != Path()]
    return iter([*spelled, *whole[len(spelled) :]][:NEAR])
