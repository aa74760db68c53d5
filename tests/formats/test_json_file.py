"""JSON of strangers: what would eat memory or time, and what two readers would understand differently, is refused at
once and named.
"""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import pytest

from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.json_file import TABLE, parse_json, read_json

REAL = '{"model_max_length": 1000000000000000019884624838656, "a": "\\ud83d\\ude00 \\u00e9 é 😀", "b": [1e-06, 1e300]}'


def test_what_real_files_hold(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text(REAL)
    found = read_json(tmp_path / "tokenizer_config.json")
    assert found["model_max_length"] == 1000000000000000019884624838656
    assert found["a"] == "😀 é é 😀"
    assert found["b"] == [1e-6, 1e300]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'{"a": ' + b"1" * 101 + b"}", "an integer of 101 digits"),
        (b'{"a": ' + b"1" * 3_000_000 + b"}", "an integer of 3000000 digits"),
        (b'{"a": 1e999}', "1e999 is larger than any number"),
        (b'{"a": -1e999}', "-1e999 is larger than any number"),
        (b'{"a": Infinity}', "Infinity is no JSON number"),
        (b'{"a": NaN}', "NaN is no JSON number"),
        (b'{"a": "\\ud800"}', "surrogates not allowed"),
        (b'{"a": ["x", {"b": "\\uDEAD\\ud83d"}]}', "surrogates not allowed"),
        (b'{"\\ud800": 1}', "surrogates not allowed"),
        (b'{"a": "\xed\xa0\x80"}', "can't decode"),
        (b'{"a": ' + b"[" * 60 + b"]" * 60 + b"}", "nested deeper"),
        (b'{"a": ' + b'{"b":' * 60 + b"1" + b"}" * 61, "nested deeper"),
        (b'{"a": ' + b"[" * 100_000, "maximum recursion depth"),
        (b'{"a": 1, "a": 2}', "the key 'a' is there twice"),
        (b'{"\\nerror: x": 1, "\\nerror: x": 2}', "nerror: x' is there twice"),
        (b"[" + b"1," * 200_000 + b"1]", "more than 200,000 parts"),
        (b'{"a": "' + b"{" * 200_000 + b'"}', "more than 200,000 parts"),
        (b'{"a": "' + b"x" * 4_000_000 + b'"}', "larger than 4 MB"),
        ('{"a": "😀'.encode() + b"x" * 1_000_000 + b'"}', "larger than 1 MB"),
        (b'{"a": "\\ud83d\\ude00' + b"x" * 1_000_000 + b'"}', "larger than 1 MB"),
        (b"[1]", "holds no JSON object"),
        (b"", "not valid JSON"),
    ],
    ids=lambda value: repr(value[:30]),
)
def test_refused_by_name(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "a\nb.json"
    path.write_bytes(text)
    with pytest.raises(CorruptError, match=r"a\\nb.json") as caught:
        read_json(path)
    assert says in caught.value.what
    assert "\n" not in caught.value.what
    assert len(caught.value.what) < 2000


def test_the_deepest_that_is_read() -> None:
    assert parse_json(b'{"a": ' + b"[" * 59 + b"]" * 59 + b"}", "x")


@pytest.mark.parametrize("bound", ["document", "table"])
@pytest.mark.parametrize("text", [b"[],", b"1,", b'{"a":0},', b'"",'])
def test_refused_before_it_is_parsed(tmp_path: Path, text: bytes, bound: str) -> None:
    """99 MB: in no time, and with no more memory than its bytes take."""
    path = tmp_path / "x.json"
    path.write_bytes(b'{"a": [' + text * (99_000_000 // len(text)) + b"1]}")
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(CorruptError, match=r"x\.json (is larger than 4 MB|has more than 2,500,000 parts)"):
        read_json(path, *([TABLE] if bound == "table" else []))
    assert time.process_time() - begin < 1
    assert tracemalloc.get_traced_memory()[1] < (101_000_000 if bound == "table" else 5_000_000)
    tracemalloc.stop()


READ = """
import resource, sys
from pathlib import Path
from vlconv.converters.formats.json_file import TABLE, read_json
used = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = used()
assert len(read_json(Path(sys.argv[1]), TABLE)["a"]) > 1000
print(used() - before)
"""


@pytest.mark.parametrize(
    "text",
    [b'{"a": [' + b"[1]," * 1_249_000 + b"1]}", b'{"a": "' + b"x" * 99_000_000 + b'"}'],
    ids=["parts", "bytes"],
)
def test_the_largest_that_is_read_fits_in_memory(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.json").write_bytes(text)
    ran = subprocess.run([sys.executable, "-c", READ, tmp_path / "x.json"], capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 400_000  # kB
