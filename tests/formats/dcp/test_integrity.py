"""integrity.json: what it vouches for is held against it, in each command, before anything is written."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_reference
from refusing import flip, refused

from vlconv.converters import (
    Mcore2HfOptions,
    Mcore2McoreOptions,
    Report,
    VerifyOptions,
    mcore2hf,
    mcore2mcore,
    verify,
)
from vlconv.converters.errors import CorruptError, NotComparable, ReadError, UnsupportedError
from vlconv.converters.formats.dcp import integrity
from vlconv.converters.formats.dcp.integrity import read_integrity
from vlconv.converters.formats.directory.contents import strange_in_iteration
from vlconv.converters.formats.seen_files import SeenFiles

pytestmark = pytest.mark.mcore_versions

CONFIG = tiny()
NAME = "integrity.json"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that megatron-core wrote, with an integrity.json, and its reference beside it."""
    work = tmp_path_factory.mktemp("made")
    save(work / "mcore", CONFIG, random_hf_tensors(CONFIG), Topology(tp=2), iteration=10, integrity=True)
    write_reference(work / "mcore" / "huggingface", CONFIG)
    return work


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy to falsify."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@pytest.fixture
def checkpoint(work: Path) -> Path:
    return work / "mcore" / "iter_0000010"


def listed(checkpoint: Path) -> dict[str, str]:
    files: dict[str, str] = json.loads((checkpoint / NAME).read_text())["files"]
    return files


def state(checkpoint: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((checkpoint / NAME).read_text())
    change(document)
    (checkpoint / NAME).write_text(json.dumps(document))


def no(work: Path, **expected: Any) -> None:
    refused(mcore2hf, work / "mcore", work / "out", **expected)


COMMANDS = [(mcore2hf, Mcore2HfOptions), (mcore2mcore, Mcore2McoreOptions)]


class Watch:
    """Remembers the bytes it is told of, and what the target's folder held when it was."""

    def __init__(self, target: Path) -> None:
        self.target, self.told = target, list[tuple[int, int, int]]()

    def planned(self, report: Report) -> None:
        assert "(SHA-256)" in report.told["to_hash"]

    def progress(self, done: int, total: int) -> None:
        written = sum(path.stat().st_size for path in self.target.parent.rglob("*.safetensors") if path.is_file())
        self.told.append((done, total, written))


class TestAgreement:
    @pytest.mark.parametrize(("command", "options"), COMMANDS)
    def test_of_all_files(self, work: Path, checkpoint: Path, command: Any, options: Any) -> None:
        files = listed(checkpoint)
        assert {".metadata", "metadata.json"} < files.keys()
        assert sum(name.endswith(".distcp") for name in files) > 1
        plan = command(work / "mcore", work / "out", options(dry_run=True))
        assert plan.data["integrity"] == {"vouched": sorted(files), "unlisted": [], "agree": None}
        assert plan.told["to_hash"].startswith(f"{len(files)} files that integrity.json lists, ")
        assert "integrity" not in plan.told
        report = command(work / "mcore", work / "out")
        assert report.told["integrity"] == f"{len(files)} files agree with integrity.json (SHA-256)"
        assert report.data["integrity"] == {"vouched": sorted(files), "unlisted": [], "agree": True}
        assert report.warnings == command(work / "mcore", work / "out2", options(dry_run=True)).warnings

    def test_verify(self, work: Path, checkpoint: Path) -> None:
        count = len(listed(checkpoint))
        assert verify(work / "mcore").told["integrity"] == f"{count} files agree with integrity.json (SHA-256)"
        mcore2hf(work / "mcore", work / "hf")
        report = verify(work / "hf", work / "mcore")
        assert report.status == "same"
        assert report.told["b_integrity"] == f"{count} files agree with integrity.json (SHA-256)"
        assert report.data["b"]["integrity"]["agree"] is True
        assert "integrity" not in report.data["a"]

    def test_is_seen_before_anything_is_written(self, work: Path, checkpoint: Path) -> None:
        watch = Watch(work / "out")
        mcore2hf(work / "mcore", work / "out", observer=watch)
        size = sum((checkpoint / name).stat().st_size for name in listed(checkpoint))
        hashing = [(done, written) for done, total, written in watch.told if total == size]
        assert hashing[-1] == (size, 0)

    def test_without_one_nothing_is_said(self, work: Path, checkpoint: Path) -> None:
        (checkpoint / NAME).unlink()
        report = mcore2hf(work / "mcore", work / "out")
        assert not {"to_hash", "integrity"} & report.told.keys()
        assert "integrity" not in report.data

    def test_it_is_part_of_a_checkpoint(self, checkpoint: Path) -> None:
        """--overwrite does not call it strange."""
        assert strange_in_iteration(checkpoint) == []


class TestFalsified:
    @pytest.mark.parametrize(("command", "options"), COMMANDS)
    def test_in_the_list(self, work: Path, checkpoint: Path, command: Any, options: Any) -> None:
        """Of each file."""
        good = (checkpoint / NAME).read_text()
        for name in listed(checkpoint):
            state(checkpoint, lambda d, name=name: d["files"].update({name: "0" * 64}))  # type: ignore[misc]
            says = (str(checkpoint / name), "is not the file that was saved", "integrity.json states 0000000000000000…")
            refused(command, work / "mcore", work / "out", fault=CorruptError, says=says, hint="copy both again")
            (checkpoint / NAME).write_text(good)

    def test_in_the_file(self, work: Path, checkpoint: Path) -> None:
        """One bit beside everything that a tensor's own checksum covers."""
        name = next(name for name in listed(checkpoint) if name.endswith(".distcp"))
        flip(checkpoint / name, 8 * 4)  # the version that a zip's first header asks for: nobody reads it
        no(work, fault=CorruptError, says=(str(checkpoint / name), "is not the file that was saved"))
        (checkpoint / NAME).unlink()
        assert mcore2hf(work / "mcore", work / "out").status == "done"

    def test_verify(self, work: Path, checkpoint: Path) -> None:
        state(checkpoint, lambda d: d["files"].update({"metadata.json": "f" * 64}))
        with pytest.raises(NotComparable, match=r"metadata.json is not the file that was saved"):
            verify(work / "mcore")
        assert verify(work / "mcore", options=VerifyOptions(dry_run=True)).status == "planned"

    def test_a_file_that_is_missing(self, work: Path, checkpoint: Path) -> None:
        state(checkpoint, lambda d: d["files"].update({"__9_0.distcp": "0" * 64}))
        says = f"{checkpoint / '__9_0.distcp'} is missing, though integrity.json lists it"
        no(work, fault=CorruptError, says=says, hint="Copy the missing file")

    def test_a_file_that_nobody_reads(self, work: Path, checkpoint: Path) -> None:
        """An optimizer's, say: it is there, and that is all that is asked."""
        (checkpoint / "__9_0.distcp").write_bytes(b"other")
        state(checkpoint, lambda d: d["files"].update({"__9_0.distcp": "0" * 64}))
        report = mcore2hf(work / "mcore", work / "out")
        assert "__9_0.distcp" not in report.data["integrity"]["vouched"]

    def test_a_file_that_is_not_listed(self, work: Path, checkpoint: Path) -> None:
        name = next(name for name in listed(checkpoint) if name.endswith(".distcp"))
        state(checkpoint, lambda d: d["files"].pop(name))
        report = mcore2hf(work / "mcore", work / "out")
        assert report.data["integrity"]["unlisted"] == [name]
        assert report.told["to_hash"].endswith(f"; it does not list {name}")
        assert differing(read_hf(work / "out"), random_hf_tensors(CONFIG)) == []


class TestGarbage:
    @pytest.mark.parametrize("content", ["", "{", "[]", "\x00", '{"files": {}, "files": {}}'])
    def test_no_json(self, work: Path, checkpoint: Path, content: str) -> None:
        (checkpoint / NAME).write_text(content)
        no(work, fault=CorruptError, says=str(checkpoint / NAME))

    @pytest.mark.parametrize("files", [None, [], "x", {".metadata": 1}, {".metadata": ""}, {".metadata": "G" * 64}])
    def test_no_list(self, work: Path, checkpoint: Path, files: object) -> None:
        state(checkpoint, lambda d: d.update(files=files))
        no(work, fault=CorruptError, says=f"{checkpoint / NAME} is no list of files and their SHA-256")

    @pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/b", "..", ""])
    def test_a_file_elsewhere(self, work: Path, checkpoint: Path, name: str) -> None:
        state(checkpoint, lambda d: d["files"].update({name: "0" * 64}))
        no(work, fault=CorruptError, says=(str(checkpoint / NAME), "which is not a plain file name"))

    def test_another_kind_of_sum(self, work: Path, checkpoint: Path) -> None:
        state(checkpoint, lambda d: d.update(algorithm="md5\x1b"))
        no(work, fault=UnsupportedError, says=("integrity.json states sums by md5\\x1b", "only sha256 is checked"))

    def test_unreadable(self, work: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        real = os.open

        def refuse(path: Any, *args: Any, **how: Any) -> int:
            if str(path).endswith(NAME):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *args, **how)

        monkeypatch.setattr(os, "open", refuse)
        no(work, fault=ReadError, says=f"{checkpoint / NAME} cannot be read: Permission denied")


def test_a_large_file_is_hashed_in_blocks(tmp_path: Path) -> None:
    """The same sum as of the whole; and who watches is told of every byte."""
    content = bytes(range(256)) * 4096 * 3 + b"rest"
    (tmp_path / ".metadata").write_bytes(content)
    digest = "4a611f6dac0c852a068ac2bea20673864e5f6cd736c0bc159493df0c73327ddb"
    (tmp_path / NAME).write_text(json.dumps({"files": {".metadata": digest}}))
    found, told = read_integrity(tmp_path), list[tuple[int, int]]()
    assert found
    assert len(content) > 3 * integrity.BLOCK
    found.check(SeenFiles(), 1, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(content), len(content))


def test_it_stops_when_it_is_interrupted(tmp_path: Path) -> None:
    """A file of terabytes is not read to its end first."""
    with (tmp_path / ".metadata").open("wb") as file:
        file.truncate(1 << 42)
    (tmp_path / NAME).write_text(json.dumps({"files": {".metadata": "0" * 64}}))
    found = read_integrity(tmp_path)
    assert found

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        found.check(SeenFiles(), 2, interrupt)
