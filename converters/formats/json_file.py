"""JSON files of strangers: one object, and nothing that two readers would understand differently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import CorruptError, shown
from .open_files import opened

LARGEST = 100_000_000
"""Bytes of JSON that are read at all: the index of a large model has some millions."""


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CorruptError: missing, not a regular file, too large, not UTF-8 JSON, an object with a key twice, or not an
            object.
        ReadError: the system does not let it be read.
    """
    with opened(path) as file:
        raw = file.read(LARGEST + 1)
    if len(raw) > LARGEST:
        raise CorruptError(f"{path} is larger than {LARGEST // 10**6} MB, which no such file is")
    return parse_json(raw, str(path))


def parse_json(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON object in some bytes; `where` names them in errors, as for read_json."""
    try:
        document = json.loads(raw.decode("utf-8"), object_pairs_hook=_once, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"{where} is not valid JSON: {shown(error)}") from error
    if not isinstance(document, dict):
        raise CorruptError(f"{where} holds no JSON object")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys are distinct: of a doubled key, readers take the first or the last."""
    document = dict(pairs)
    if len(document) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} is there twice")
    return document


def _finite(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")
