"""vlconv.json as text: read as it was written, refused where it is not."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.errors import CorruptError
from vlconv.converters.manifest.find import find_manifest, read_manifest
from vlconv.converters.manifest.record import FileSum, Manifest, Part

MADE = {"vlconv": "1.2.3", "command": "mcore2hf", "source": {"given": 'a "b"\n'}, "warnings": ["é"]}
FILES = {"b/x.distcp": FileSum(9, 0x0A0B0C0D), "a": FileSum(0, 0, "ab" * 32)}
PARTS = [
    Part("model.w", "bfloat16", (2, 2), (), "b/x.distcp", 1, 8, 0xFFFFFFFF),
    Part("model.w", "bfloat16", (1, 2), (2, 0), "b/x.distcp", 1, 4, 1),
    Part("scalar", "float32", (), (), "a", 0, 4, 2),
]
MANIFEST = Manifest(MADE, FILES, PARTS)


def put(root: Path, document: Any) -> Path:
    root.mkdir(exist_ok=True)
    (root / "vlconv.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return root


@pytest.mark.parametrize("manifest", [MANIFEST, Manifest(MADE, {}, []), Manifest({}, FILES, PARTS)])
def test_there_and_back(tmp_path: Path, manifest: Manifest) -> None:
    assert read_manifest(put(tmp_path / "x", manifest.text())) == manifest


def test_a_program_reads_it_as_json() -> None:
    document = json.loads(MANIFEST.text())
    assert document["format"] == 1 and document["vlconv"] == "1.2.3"
    assert document["files"] == {
        "a": {"bytes": 0, "crc32": "00000000", "sha256": "ab" * 32},
        "b/x.distcp": {"bytes": 9, "crc32": "0a0b0c0d"},
    }
    assert document["tensors"][1] == {
        "name": "model.w",
        "dtype": "bfloat16",
        "shape": [1, 2],
        "begin": [2, 0],
        "file": "b/x.distcp",
        "offset": 1,
        "bytes": 4,
        "crc32": "00000001",
    }
    assert "begin" not in document["tensors"][0]


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a/../x", "a//x", "./x", "", "a/.", "x\0"])
def test_a_file_outside_is_refused(tmp_path: Path, name: str) -> None:
    text = Manifest(MADE, {name: FileSum(1, 1)}, []).text()
    with pytest.raises(CorruptError, match="not below it"):
        read_manifest(put(tmp_path / "x", text))


WRONG = [-1, 1.5, "1", None, [], {}, True, 1 << 62, "zzzzzzzz", "012345678"]


def changes() -> list[dict[str, Any]]:
    """Every value below `files` and `tensors` replaced by each wrong one, or left out."""
    found = []

    def walk(path: tuple[Any, ...], node: Any) -> None:
        for key in list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ():
            for wrong in (*WRONG, "out"):
                document = json.loads(MANIFEST.text())
                at = document
                for step in path:
                    at = at[step]
                if wrong == "out":
                    del at[key]
                elif type(at[key]) is type(wrong) and not isinstance(wrong, str | int):
                    continue
                else:
                    at[key] = wrong
                found.append(document)
            walk((*path, key), node[key])

    document = json.loads(MANIFEST.text())
    walk(("files",), document["files"])
    walk(("tensors",), document["tensors"])
    for key in ("files", "tensors", "format"):
        found += [{**document, key: wrong} for wrong in WRONG]
    return random.Random(0).sample(found, len(found))


def test_nothing_wrong_ends_otherwise_than_as_a_damaged_file(tmp_path: Path) -> None:
    refused = 0
    for document in changes():
        put(tmp_path / "x", document)
        with suppress(CorruptError):  # some are as good as any: another size, or another sum
            read_manifest(tmp_path / "x")
            continue
        refused += 1
    assert refused > 100


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 2}', '{"format": 1}', '{"format": 1, "format": 1}'])
def test_what_is_no_manifest(tmp_path: Path, text: str) -> None:
    with pytest.raises(CorruptError, match=r"vlconv\.json"):
        read_manifest(put(tmp_path / "x", text))


class TestFind:
    def test_in_the_directory_itself(self, tmp_path: Path) -> None:
        root = put(tmp_path / "x", MANIFEST.text())
        assert find_manifest(root) == (MANIFEST, root)

    def test_in_the_save_directory_above(self, tmp_path: Path) -> None:
        root = put(tmp_path / "x", MANIFEST.text())
        (root / "b").mkdir()
        assert find_manifest(root / "b") == (MANIFEST, root)

    def test_not_one_that_speaks_of_other_iterations(self, tmp_path: Path) -> None:
        root = put(tmp_path / "x", MANIFEST.text())
        (root / "c").mkdir()
        assert find_manifest(root / "c") is None

    def test_none(self, tmp_path: Path) -> None:
        assert find_manifest(tmp_path) is None
