"""The journal of finished files, and what an ended run has left."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

import pytest
from standing import content, files, inodes, names, output, save_directory

from vlconv.converters.errors import TargetError
from vlconv.converters.formats.directory.unfinished import MARKER
from vlconv.converters.formats.output_file import WrittenFile
from vlconv.converters.output import place
from vlconv.converters.output.directory import OutputDirectory
from vlconv.converters.output.replaceable import CHECKPOINT, HF_MODEL
from vlconv.converters.output.staging.claim import Claim
from vlconv.converters.output.staging.ended import abandoned
from vlconv.converters.output.staging.journal import Journal, keep_only
from vlconv.converters.output.target import Target
from vlconv.converters.report import Report
from vlconv.converters.tensors.nonfinite import Count

ONE = WrittenFile("a/one", 7, 0x01020304, (1, 2), {"w": Count(3, 4)})
TWO = WrittenFile("two", 0, 0)
READ = {5: [(0, 10, 77), (20, 30, 78)], 6: []}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


def noted(path: Path) -> Journal:
    journal = Journal(path, "print")
    journal.begin()
    journal.note(ONE, READ)
    journal.note(TWO, {5: [(0, 30, 79)]})
    return journal


class TestJournal:
    def test_what_is_noted_is_read(self, path: Path) -> None:
        assert Journal.read(path) is None
        written = noted(path)
        read = Journal.read(path)
        assert read == written.__class__(path, "print", {"a/one": ONE, "two": TWO}, {5: [(0, 30, 79)], 6: []})
        assert read.nbytes == 7

    @pytest.mark.parametrize("cut", range(1, 60))
    def test_a_line_that_was_cut_short_is_none(self, path: Path, cut: int) -> None:
        noted(path)
        data = path.read_bytes()
        path.write_bytes(data[:-cut])
        read = Journal.read(path)
        assert read is not None
        last = data[:-cut].endswith(b"\n") or cut == 1  # but for the end of the line it is whole
        assert list(read.finished) == (["a/one", "two"] if last else ["a/one"])

    def test_every_flipped_bit_is_seen(self, path: Path) -> None:
        noted(path)
        data = path.read_bytes()
        ends = [at for at, byte in enumerate(data) if byte == 10]
        for bit in range(8 * ends[1]):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            read = Journal.read(path)
            if bit // 8 <= ends[0]:
                assert read is None or not read.finished
            else:
                assert read is not None and read.fingerprint == "print" and not read.finished

    def test_what_is_no_journal(self, path: Path) -> None:
        for data in (b"", b"x", b"\n", b"00000000 \n", b'%08x {"a": 1}\n' % zlib.crc32(b'{"a": 1}'), b"\xff" * 99):
            path.write_bytes(data)
            assert Journal.read(path) is None

    def test_of_another_version(self, path: Path) -> None:
        """Whole lines, that say something else."""
        for text in (
            '{"file": 1}',
            "[]",
            '{"files": []}',
            '{"file": ["a", 1, 2, [], []], "source": []}',
            '{"file": ["a", 1, 2, [], {}], "source": [1]}',
            "1",
        ):
            journal = Journal(path, "print")
            journal.begin()
            with path.open("a") as file:
                file.write(f"{zlib.crc32(text.encode()):08x} {text}\n")
            read = Journal.read(path)
            assert read is not None and (read.fingerprint, read.finished, read.source) == ("print", {}, {})
            path.write_text(f"{zlib.crc32(text.encode()):08x} {text}\n")
            assert Journal.read(path) is None

    def test_what_is_no_file(self, path: Path, tmp_path: Path) -> None:
        os.mkfifo(path)
        assert Journal.read(path) is None
        (tmp_path / "link").symlink_to(noted(tmp_path / "other").path)
        assert Journal.read(tmp_path / "link") is None


def test_only_what_is_finished_is_kept(tmp_path: Path) -> None:
    root = files(tmp_path / "new", "a/one", "a/half", "two", "deep/er/x", "empty/")
    (root / "link").symlink_to("a", target_is_directory=True)
    (root / "a/two").symlink_to("../two")
    keep_only(root, ["a/one", "a/two", "two"])
    assert sorted(content(root)) == ["a/one", "two"]
    assert not os.path.lexists(root / "link")


def begun(path: Path, fingerprint: str = "print", **options: object) -> OutputDirectory:
    return OutputDirectory(Target(path=path, kind=HF_MODEL), fingerprint=fingerprint, **options)  # type: ignore[arg-type]


def killed(output: OutputDirectory, *finished: str) -> None:
    """As after a SIGKILL: nothing is put right, and the lock is free."""
    new = output.__enter__()
    for name in finished:
        files(new, name)
        output.journal.note(WrittenFile(name, 3, zlib.crc32(b"old")), {})
    files(new, "half")
    assert output._claim is not None
    output._claim.release()


class TestResume:
    def test_the_same_goes_on(self, tmp_path: Path) -> None:
        killed(begun(tmp_path / "out"), "a/one", "two")
        again, report = begun(tmp_path / "out"), Report("x", "planned")
        again.check()
        again.describe(report)
        assert report.data["resumes"] == {"files": 2, "bytes": 6}
        with again as new:
            assert sorted(again.journal.finished) == ["a/one", "two"]
            assert sorted(content(new)) == ["a/one", "two"]
            told = Report("x", "planned")
            again.describe(told)
            assert told.told == report.told
        assert names(tmp_path) == ["out"]
        assert sorted(content(tmp_path / "out")) == ["a/one", "two"]

    @pytest.mark.parametrize("how", ["other", "not asked", "nothing to hold it by"])
    def test_another_starts_anew(self, tmp_path: Path, how: str) -> None:
        killed(begun(tmp_path / "out"), "one")
        other = {
            "other": begun(tmp_path / "out", "other"),
            "not asked": begun(tmp_path / "out", resume=False),
            "nothing to hold it by": begun(tmp_path / "out", ""),
        }[how]
        report = Report("x", "planned")
        with other as new:
            assert not other.journal.finished and not content(new)
            other.describe(report)
        assert report.data["starts_anew"] == str(tmp_path / "out.partial")

    def test_killed_again_and_again(self, tmp_path: Path) -> None:
        killed(begun(tmp_path / "out"), "one")
        killed(begun(tmp_path / "out"), "two")
        with begun(tmp_path / "out") as new:
            assert sorted(content(new)) == ["one", "two"]

    def test_what_is_kept_needs_no_room(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        asked = []
        monkeypatch.setattr(place, "check_room", None)
        monkeypatch.setattr(
            "vlconv.converters.output.directory.check_room", lambda parent, need: asked.append((parent, need))
        )
        killed(begun(tmp_path / "out", need=10), "one")
        with begun(tmp_path / "out", need=10):
            assert asked == [(tmp_path, 10), (tmp_path, 7)]

    def test_a_refusal_leaves_it(self, tmp_path: Path) -> None:
        """The target has come into being meanwhile: what was written is not lost for that."""
        killed(begun(tmp_path / "out"), "one")
        before = inodes(tmp_path / "out.partial")
        files(tmp_path / "out", "model.safetensors")
        with pytest.raises(TargetError, match="not empty"):
            begun(tmp_path / "out").__enter__()
        assert inodes(tmp_path / "out.partial") == before
        assert Claim.take(tmp_path / "out.partial") is not None  # and it is locked by nobody

    def test_an_iteration(self, tmp_path: Path) -> None:
        save = save_directory(tmp_path / "save", "iter_0000005", tracker="5")

        def adding() -> OutputDirectory:
            target = Target(path=save, kind=CHECKPOINT, iteration=10)
            return OutputDirectory(target, fingerprint="print")

        killed(adding(), "iter_0000010/.metadata")
        again = adding()
        with again as new:
            assert list(again.journal.finished) == ["iter_0000010/.metadata"]
            files(new, "huggingface/config.json")
        assert names(save / "iter_0000010") == [".metadata", "huggingface"]

    def test_files_that_were_moved_for_the_last_step_are_written_again(self, tmp_path: Path) -> None:
        """A kill between the last file and the rename."""
        save = save_directory(tmp_path / "save", "iter_0000005", tracker="5")
        target = Target(path=save, kind=CHECKPOINT, iteration=10)
        first = OutputDirectory(target, fingerprint="print")
        new = first.__enter__()
        files(new, "iter_0000010/.metadata", "iter_0000010/huggingface/config.json")
        first.journal.note(WrittenFile("iter_0000010/.metadata", 3, 0), {})
        assert first._claim is not None
        first._claim.release()
        with OutputDirectory(target, fingerprint="print") as new:
            assert sorted(content(new)) == ["iter_0000010/.metadata"]


class TestAbandoned:
    def found(self, *looked_at: Path) -> list[str]:
        return [entry.path.name for entry in abandoned(looked_at)]

    def test_beside_and_inside_what_is_looked_at(self, tmp_path: Path) -> None:
        save = save_directory(tmp_path / "save", "iter_0000005", tracker="5")
        for folder in (tmp_path / "out.partial", save / ".iter_0000010.partial"):
            files(folder, MARKER, "new/half", text="12345")
        assert self.found(save) == ["out.partial", ".iter_0000010.partial"]
        assert self.found(tmp_path / "not there") == ["out.partial"]
        assert self.found(tmp_path / "out", tmp_path / "other") == ["out.partial"]
        assert [entry.nbytes for entry in abandoned([save])] == [10, 10]

    def test_not_one_that_is_written(self, tmp_path: Path) -> None:
        with output(tmp_path / "out"):
            assert self.found(tmp_path / "other") == []
        killed(begun(tmp_path / "out"))
        assert self.found(tmp_path / "other") == ["out.partial"]

    def test_not_what_is_none_of_ours(self, tmp_path: Path) -> None:
        files(tmp_path, "mine.partial/file", "file.partial", f"other/{MARKER}")
        files(tmp_path / "far", MARKER)
        (tmp_path / "link.partial").symlink_to("far")
        assert self.found(tmp_path / "out") == []

    def test_looking_changes_nothing(self, tmp_path: Path) -> None:
        killed(begun(tmp_path / "out"), "one")
        before = inodes(tmp_path)
        self.found(tmp_path / "out")
        assert inodes(tmp_path) == before
