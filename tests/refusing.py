"""What every refusal must be: one of vlconv's errors, saying what and what to do, with nothing left behind."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.errors import VlconvError


def refused(
    command: Callable[..., Any],
    source: Path,
    target: Path,
    *options: Any,
    fault: type[VlconvError],
    says: tuple[str, ...] | str,
    hint: str = "",
) -> VlconvError:
    """Run mcore2hf or hf2mcore, and look at what it says and leaves.

    Args:
        command: the function.
        source, target: its paths.
        options: its options, if any.
        fault: the exact class of the error.
        says: all of this is in its first sentence.
        hint: this is in its second; that there is one is always asked for.
    """
    before = snapshot(target.parent)
    with pytest.raises(VlconvError) as caught:
        command(source, target, *options)
    error = caught.value
    assert type(error) is fault, repr(error)
    for words in (says,) if isinstance(says, str) else says:
        assert words in error.what
    assert error.hint and hint in error.hint
    assert all(c.isprintable() or c == "\n" for c in str(error))
    assert snapshot(target.parent) == before
    return error


def snapshot(directory: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with inode and size; so nothing came, went or was exchanged."""
    return {
        str(p.relative_to(directory)): (p.lstat().st_ino, p.lstat().st_size if not p.is_dir() else 0)
        for p in directory.rglob("*")
    }


def edit_metadata(directory: Path, change: Callable[[Any], None]) -> None:
    """Change a checkpoint's `.metadata` as torch's own objects."""
    path = directory / ".metadata"
    metadata = pickle.loads(path.read_bytes())
    change(metadata)
    path.write_bytes(pickle.dumps(metadata))


def edit_config(directory: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change a config.json."""
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file; counted from the end when negative."""
    with path.open("r+b") as file:
        at = bit // 8 % path.stat().st_size
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << bit % 8]))
