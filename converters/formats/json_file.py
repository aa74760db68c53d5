"""JSON files of strangers: one object, bounded before it is parsed, and nothing that readers understand differently.

A few megabytes of `[[],[],…]` take gigabytes once they are parsed, so the pieces are counted first, on the bytes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import CorruptError, shown, shown_path
from .open_files import opened


class Bound(NamedTuple):
    """How much JSON is read at all.

    Attributes:
        nbytes: of the text; a quarter of it where it is not all ASCII, as every character may then take four bytes.
        pieces: of ',', ':', '[' and '{', wherever they stand; the memory that a text takes once parsed hangs on them.
    """

    nbytes: int
    pieces: int


DOCUMENT = Bound(4_000_000, 200_000)
"""A config, or what a trainer states: some thousands of pieces at most."""

TABLE = Bound(100_000_000, 2_500_000)
"""The index or a header of a large model: 200,000 tensors in one file."""

DEPTH = 60
"""Containers within containers, at most."""

DIGITS = 100
"""Of an integer: tokenizer_config.json has 10^30 for "no limit", and none has more than a float can hold."""

_LONG = re.compile(rb"\d{%d}" % DIGITS)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_json(path: Path, bound: Bound = DOCUMENT) -> dict[str, Any]:
    """A JSON object.

    Args:
        path: of the file.
        bound: how much of it is read at all.

    Raises:
        CorruptError: missing, not a regular file, or as `parse_json`; names the file.
        ReadError: the system does not let it be read.
    """
    with opened(path) as file:
        return parse_json(file.read(bound.nbytes + 1), shown_path(path), bound)


def parse_json(raw: bytes, where: str, bound: Bound = DOCUMENT) -> dict[str, Any]:
    """The JSON object in some bytes.

    Args:
        raw: the text.
        where: what to call it in errors, safe to print.
        bound: how much is parsed at all.

    Raises:
        CorruptError: beyond the bound, not UTF-8 JSON, an object with a key twice, a number that no float can hold,
            half a surrogate pair, nested too deep, or not an object.
    """
    surrogates = _SURROGATE.search(raw) is not None
    most = bound.nbytes if raw.isascii() and not surrogates else bound.nbytes // 4
    if len(raw) > most:
        raise CorruptError(f"{where} is larger than {most / 1e6:g} MB, which no such file is")
    if sum(map(raw.count, (b",", b":", b"[", b"{"))) > bound.pieces:
        raise CorruptError(f"{where} has more than {bound.pieces:,} parts, which no such file has")
    integer = _integer if _LONG.search(raw) else None  # a call for each of hundreds of thousands of numbers
    try:
        text = raw.decode("utf-8")
        del raw
        document = json.loads(
            text, object_pairs_hook=_once, parse_constant=_finite, parse_int=integer, parse_float=_number
        )
        _check_nesting(document, surrogates)
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
        raise ValueError(f"the key {shown(twice, 80)!r} is there twice")
    return document


def _finite(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON number")


def _integer(digits: str) -> int:
    if len(digits) > DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _number(digits: str) -> float:
    if not isfinite(number := float(digits)):
        raise ValueError(f"{shown(digits)} is larger than any number")
    return number


def _check_nesting(document: Any, surrogates: bool) -> None:
    """Refuse containers too deep within each other and, where there are `surrogates`, one without its other half."""
    level: list[Any] = [[document]]
    for _ in range(1 + DEPTH):
        inside = [
            part for container in level for part in (container.values() if type(container) is dict else container)
        ]
        if surrogates:
            _check_text(part for part in inside if type(part) is str)
            _check_text(key for container in level if type(container) is dict for key in container)
        level = [part for part in inside if type(part) is dict or type(part) is list]
    if level:
        raise ValueError("nested deeper than any such file")


def _check_text(texts: Iterable[str]) -> None:
    for text in texts:
        text.encode()  # UnicodeEncodeError, a ValueError
