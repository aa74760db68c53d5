"""What a directory's vlconv.json says of how it was made."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import VlconvError
from ..manifest.find import find_manifest

SAID = ("vlconv", "command", "source", "options")


def made_by(path: Path) -> tuple[Mapping[str, Any] | None, tuple[str, ...]]:
    """What it says, None where there is none; and a warning where it cannot be read."""
    try:
        found = find_manifest(path)
    except VlconvError as fault:
        return None, (fault.what,)
    if found is None:
        return None, ()
    made = {key: found.manifest.made.get(key) for key in SAID}
    nbytes = sum(file.nbytes for file in found.manifest.files.values())
    return {**made, "directory": str(found.root), "files": len(found.manifest.files), "bytes": nbytes}, ()
