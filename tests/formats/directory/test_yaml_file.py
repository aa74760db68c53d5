"""YAML of strangers: plain values, bounded before anything is built; every fault names the file."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.directory.statements import statements
from vlconv.converters.formats.directory.yaml_file import read_yaml


def read(folder: Path, text: str | bytes) -> Any:
    path = folder / "run\nconfig.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_yaml(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {_target_: torch.bfloat16, _call_: false}\nb: *x", {"_target_": "torch.bfloat16", "_call_": False}),
        ("a: &x [1, 2]\nb: *x", [1, 2]),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"p": 1, "q": 3}),
        ("b: 1e-06", "1e-06"),
        ("b: 1.0e-06", 1e-6),
        ("b: 2020-01-01", "2020-01-01"),
        ("b: 2020-99-99", "2020-99-99"),
        ("b: 2020-01-01 10:00:00", "2020-01-01 10:00:00"),
        ("b: <function f at 0x7f>", "<function f at 0x7f>"),
        ("b: !!binary aGVsbG8=", b"hello"),
        ("b: !!set {x, y}", {"x", "y"}),
        ("b: " + "[" * 58 + "]" * 58, ...),
        ("b: " + "9" * 100, int("9" * 100)),
        ("b: " + "x" * 900_000, "x" * 900_000),
        ("b: [" + "1, " * 99_000 + "]", ...),
    ],
    ids=lambda value: "set" if isinstance(value, set) else repr(value)[:30],
)
def test_what_is_read(tmp_path: Path, text: str, value: Any) -> None:
    found = read(tmp_path, text)["b"]
    assert value is ... or (found == value and type(found) is type(value))


SHARED = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
MERGED = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, 60))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[" + "1," * 7_500_000 + "1]", "larger than 1 MB"),
        ("[" + "1," * 499_000 + "1]", "stands for more than 100,000 values"),
        (SHARED, "stands for more than 100,000 values"),
        (MERGED, "stands for more than 100,000 values"),
        ("a: &a " + "x" * 500_000 + "\nb: [" + "*a," * 13 + "]", "stands for more than 100,000 values"),
        ("a: &a [*a]", "an anchor within itself: a"),
        ("&a {b: {c: *a}}", "an anchor within itself: a"),
        ("a: 1\nb: 2\na: 3", "the key a twice"),
        ("b: {x: 1, 'x': 2}", "the key x twice"),
        ("[" * 61 + "]" * 61, "nested deeper"),
        ("".join(" " * i + "a:\n" for i in range(62)), "nested deeper"),
        ("[" * 400_000, "YAML: ScannerError"),
        ("!!timestamp 2020-99-99", "YAML: ValueError"),
        ("!!timestamp x", "YAML: AttributeError"),
        ("!!bool x", "YAML: KeyError"),
        ("!!int ''", "YAML: IndexError"),
        ("a: " + "1" * 100_000, "a number of 100000 characters"),
        ("a: 0x" + "f" * 100_000, "a number of 100002 characters"),
        ("a: 1" + ":59" * 30_000, "a number of 90001 characters"),
        ("a: 1" + ":59" * 30_000 + ".5", "a number of 90003 characters"),
        ("a: !!python/object/apply:os.system [ls]", "python/object/apply:os.system"),
        ("a: !!python/tuple [1]", "python/tuple"),
        ("? [a]\n: b", "unhashable"),
        ("a: *b", "undefined alias"),
        ("---\na: 1\n---\nb: 1", "another document"),
        ("a:\tb: c", "YAML: ScannerError"),
        (b"a: \xff", "YAML: ReaderError"),
        (b"a: \0", "YAML: ReaderError"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_refused_by_name_and_at_once(tmp_path: Path, text: str | bytes, says: str) -> None:
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(CorruptError, match=r"run\\nconfig.yaml") as caught:
        read(tmp_path, text)
    assert says in caught.value.what
    assert "\n" not in caught.value.what
    assert time.process_time() - begin < 1
    assert tracemalloc.get_traced_memory()[1] < 30_000_000
    tracemalloc.stop()


def test_it_is_what_a_checkpoint_states(tmp_path: Path) -> None:
    (tmp_path / "run_config.yaml").write_text("model: {a: &x {b: 2020-01-01}, c: *x, 7: seven}\ntrain: {d: 1}")
    (found,) = statements(tmp_path, dict)
    assert found == ("run_config.yaml", {"a": {"b": "2020-01-01"}, "c": {"b": "2020-01-01"}, "7": "seven"})
    (tmp_path / "run_config.yaml").write_text("model: [" + "1," * 499_000 + "1]")
    with pytest.raises(CorruptError, match=r"run_config\.yaml stands for more"):
        statements(tmp_path, dict)
