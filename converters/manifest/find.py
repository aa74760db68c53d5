"""The manifest of a directory, where it has one."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..errors import CorruptError, shown, shown_path
from ..formats.directory.contents import MANIFEST
from ..formats.json_file import TABLE, read_json
from ..formats.open_files import is_file
from .record import Manifest


class Found(NamedTuple):
    """A manifest, and the directory that its names start from."""

    manifest: Manifest
    root: Path


def read_manifest(root: Path) -> Manifest:
    """The manifest in a directory.

    Raises:
        CorruptError: damaged, or names a file that is not below the directory.
        ReadError: the system does not let it be read.
    """
    path = root / MANIFEST
    manifest = Manifest.parse(read_json(path, TABLE), shown_path(path))
    for name in manifest.files:
        if not name or name.startswith("/") or "\0" in name or not {"", ".", ".."}.isdisjoint(name.split("/")):
            raise CorruptError(f"{shown_path(path)} names a file that is not below it: {shown(name)}")
    return manifest


def find_manifest(directory: Path) -> Found | None:
    """The manifest that speaks of a directory: in it, or in the save directory above it.

    Args:
        directory: a Hugging Face model, a checkpoint's own directory, or one above it.

    Errors as `read_manifest`.
    """
    if is_file(directory / MANIFEST):
        return Found(read_manifest(directory), directory)
    above = directory.absolute().parent
    if not is_file(above / MANIFEST):
        return None
    found = read_manifest(above)
    inside = any(name.startswith(f"{directory.absolute().name}/") for name in found.files)
    return Found(found, above) if inside else None
