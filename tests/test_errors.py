"""Names and values of strangers, as messages show them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.errors import shown, shown_path


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a\nerror: b\x1b[2J", "a\\nerror: b\\x1b[2J"),
        ("é\u202e\ud800", "\\xe9\\u202e\\ud800"),
        (Path("/srv/a\nb"), "/srv/a\\nb"),
        (b"\xff\n", "b'\\\\xff\\\\n'"),
        ([1, "a\n", (2.5, None), {"b": [True]}], "[1, 'a\\\\n', (2.5, None), {'b': [True]}]"),
        ({"a"}, "{'a'}"),
        ([], "[]"),
        pytest.param(10**5000, "an integer of 16610 bits", id="huge"),
        (ValueError("a\nb"), "a\\nb"),
    ],
)
def test_escaped(value: object, text: str) -> None:
    assert shown(value) == text


def endless() -> Any:
    """Three to the power of fifty parts, of which fifty are there."""
    value: Any = ["x"]
    for _ in range(50):
        value = [value, value, value]
    return value


def deep() -> Any:
    value: Any = []
    for _ in range(100_000):
        value = [value]
    return value


LARGE = {
    "text": lambda: "x" * 10**8,
    "lines": lambda: "\n" * 10**8,
    "texts": lambda: ["\n" * 10**7] * 100,
    "list": endless,
    "keys": lambda: {1: endless()},
    "deep": deep,
}


@pytest.mark.parametrize("large", LARGE)
@pytest.mark.parametrize("cap", [200, 1000])
def test_capped_at_once(large: str, cap: int) -> None:
    value = LARGE[large]()
    begin = time.process_time()
    text = shown(value, cap)
    assert len(text) <= cap
    assert "…" in text or "..." in text
    assert time.process_time() - begin < 0.5


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("模型/été 1", "模型/été 1"),
        ("a\nerror: b\x1b[2J\u202e\u2028\ud800\x9b", "a\\nerror: b\\x1b[2J\\u202e\\u2028\\ud800\\x9b"),
        ("x" * 1000, "x" * 1000),
        ("x" * 10**8, "x" * 999 + "…"),
        ("\n" * 10**8, "\\n" * 499 + "\\…"),
    ],
    ids=["script", "hostile", "long", "longer", "lines"],
)
def test_paths(path: str, text: str) -> None:
    assert shown_path(Path(path) if len(path) < 2000 else path) == text
