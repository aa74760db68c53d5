"""JSON and safetensors headers: what is good is read as it is, and what is not is refused, whatever it is."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as some
from properties import holds

from vlconv.converters.errors import CorruptError, SourceError
from vlconv.converters.formats.json_file import parse_json
from vlconv.converters.formats.safetensors import read_header

WIDTHS = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1, "BOOL": 1, "F8_E4M3": 1}
NAMES = some.text(max_size=12).filter(lambda name: name != "__metadata__")
VALUES = some.recursive(
    some.none() | some.booleans() | some.integers(-(2**70), 2**70) | some.floats(allow_nan=False, allow_infinity=False)
    | some.text(max_size=8),
    lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
OBJECTS = some.dictionaries(some.text(max_size=5), VALUES, max_size=5)


@holds(document=OBJECTS)
def test_json_is_read_as_it_is(document: dict[str, Any]) -> None:
    try:
        raw = json.dumps(document, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # a lone surrogate, which is no UTF-8
        raw = json.dumps(document).encode()
    assert parse_json(raw, "x.json") == document


@holds(raw=some.binary(max_size=60))
def test_any_bytes_as_json(raw: bytes) -> None:
    refused_or_object(raw)


@holds(document=OBJECTS, at=some.floats(0, 1), put=some.binary(max_size=3), cut=some.integers(0, 3))
def test_damaged_json(document: dict[str, Any], at: float, put: bytes, cut: int) -> None:
    raw = json.dumps(document).encode()
    place = int(at * len(raw))
    refused_or_object(raw[:place] + put + raw[place + cut :])


def refused_or_object(raw: bytes) -> None:
    try:
        found = parse_json(raw, "x.json")
    except CorruptError as fault:
        said = fault.what
    else:
        assert isinstance(found, dict)
        return
    assert said.startswith("x.json ") and said.isprintable()


@holds(document=OBJECTS, key=some.text(max_size=5), value=some.integers())
def test_a_key_twice(document: dict[str, Any], key: str, value: int) -> None:
    raw = json.dumps({**document, key: value})
    with pytest.raises(CorruptError, match="twice"):
        parse_json(f"{raw[:-1]},{json.dumps(key)}:{value}}}".encode(), "x.json")


@some.composite
def headers(draw: some.DrawFn) -> tuple[dict[str, Any], bytes]:
    """A good header and the body that goes with it."""
    entries: dict[str, Any] = {}
    at = 0
    for name in draw(some.lists(NAMES, max_size=5, unique=True)):
        dtype, shape = draw(some.sampled_from(sorted(WIDTHS))), draw(some.lists(some.integers(0, 4), max_size=3))
        nbytes = WIDTHS[dtype]
        for n in shape:
            nbytes *= n
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + nbytes]}
        at += nbytes
    order = draw(some.permutations(list(entries)))
    return {name: entries[name] for name in order}, bytes(n % 251 for n in range(at))


@contextmanager
def file(head: bytes, body: bytes) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile(suffix=".safetensors") as made:
        made.write(len(head).to_bytes(8, "little") + head + body)
        made.flush()
        yield Path(made.name)


@holds(good=headers())
def test_a_good_header(good: tuple[dict[str, Any], bytes]) -> None:
    entries, body = good
    head = json.dumps(entries | {"__metadata__": {"format": "pt"}}).encode()
    with file(head, body) as path:
        found = {spec.name: (spec, extent) for spec, extent in read_header(path)}
        assert {n: list(spec.shape) for n, (spec, _) in found.items()} == {n: e["shape"] for n, e in entries.items()}
        for name, entry in entries.items():
            first, last = entry["data_offsets"]
            assert found[name][1].offset - 8 - len(head) == first or first == last
            assert found[name][1].nbytes == last - first


MUTANTS = some.sampled_from(
    [-1, 0, 1, 1 << 31, 1 << 63, 1 << 64, 1e300, True, None, "", "BF16", [], [0], [0, 1], [1 << 62] * 3, {}, "\ud800"]
)


@holds(few=150, good=headers(), mutant=MUTANTS, which=some.data())
def test_a_header_with_a_wrong_value(good: tuple[dict[str, Any], bytes], mutant: Any, which: some.DataObject) -> None:
    """What is still read tiles the body."""
    entries, body = good
    if not entries:
        return
    name = which.draw(some.sampled_from(sorted(entries)))
    field = which.draw(some.sampled_from(["dtype", "shape", "data_offsets", "", "first", "last", "lost", "moved"]))
    if field in ("first", "last"):
        entries[name]["data_offsets"][field == "last"] = mutant
    elif field == "lost":
        del entries[name]
    elif field == "moved":
        by = which.draw(some.integers(-4, 4))
        entries[name]["data_offsets"] = [n + by for n in entries[name]["data_offsets"]]
    elif field:
        entries[name][field] = mutant
    else:
        entries[name] = mutant
    refused_or_tiled(json.dumps(entries).encode(), body)


@holds(good=headers(), at=some.floats(0, 1), put=some.binary(max_size=3), cut=some.integers(0, 3))
def test_a_damaged_header(good: tuple[dict[str, Any], bytes], at: float, put: bytes, cut: int) -> None:
    raw = json.dumps(good[0]).encode()
    place = int(at * len(raw))
    refused_or_tiled(raw[:place] + put + raw[place + cut :], good[1])


@holds(raw=some.binary(max_size=40), body=some.binary(max_size=10))
def test_any_bytes_as_a_header(raw: bytes, body: bytes) -> None:
    refused_or_tiled(raw, body)


def refused_or_tiled(head: bytes, body: bytes) -> None:
    with file(head, body) as path:
        try:
            found = read_header(path)
        except SourceError as fault:
            found, said = None, fault
        if found is None:
            assert str(path) in said.what and said.hint and said.what.isprintable()
            return
        spans = sorted((extent.offset - 8 - len(head), extent.nbytes) for _, extent in found if extent.nbytes)
        reached = 0
        for start, nbytes in spans:
            assert start == reached
            reached += nbytes
        assert reached == len(body)
