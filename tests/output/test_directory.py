"""The output directory: absent or complete, whatever happens."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from standing import content, files, hf_model, inodes, names, output, save_directory, write

from vlconv.converters.errors import TargetError
from vlconv.converters.formats.directory.unfinished import MARKER
from vlconv.converters.output import directory, place
from vlconv.converters.output.replaceable import CHECKPOINT
from vlconv.converters.output.staging import atomic_swap as swap
from vlconv.converters.output.staging import claim as claims
from vlconv.converters.output.staging.claim import Claim
from vlconv.converters.report import Report

MODEL = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json"]


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A target that holds an earlier output."""
    return hf_model(tmp_path / "out")


def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "exchange", lambda a, b: False)


class TestHappy:
    def test_appears_whole_and_alone(self, tmp_path: Path) -> None:
        with output(tmp_path / "out") as new:
            assert names(tmp_path) == ["out.partial"]
            files(new, "file", "deep/file")
            assert not (tmp_path / "out").exists()
        assert names(tmp_path) == ["out"]
        assert content(tmp_path / "out") == {"file": "old", "deep/file": "old"}

    def test_an_empty_directory_is_a_fine_target(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        write(tmp_path / "out")
        assert names(tmp_path) == ["out"]
        assert names(tmp_path / "out") == MODEL

    def test_a_link_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "link").symlink_to("there")
        write(tmp_path / "link")
        assert names(tmp_path) == ["link", "there"]
        assert names(tmp_path / "there") == MODEL

    @pytest.mark.parametrize("exchange", [True, False])
    def test_overwrite_replaces_all_of_the_old_one(
        self, old: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
    ) -> None:
        if not exchange:
            no_exchange(monkeypatch)
        with output(old, overwrite=True) as new:
            files(new, "file")
            assert names(old) == MODEL
        assert names(old.parent) == ["out"]
        assert names(old) == ["file"]

    def test_somebody_elses_old_is_left_alone(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        no_exchange(monkeypatch)
        (old.parent / "out.old").mkdir()
        write(old, overwrite=True)
        assert names(old.parent) == ["out", "out.old"]

    def test_every_file_and_directory_is_synced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced = set()
        monkeypatch.setattr(os, "fsync", lambda fd: synced.add(str(Path(f"/proc/self/fd/{fd}").readlink())))
        with output(tmp_path / "out") as new:
            files(new, "deep/file")
        staging = f"{tmp_path}/out.partial"
        assert synced >= {staging, f"{staging}/new", f"{staging}/new/deep", f"{staging}/new/deep/file", str(tmp_path)}

    def test_the_plan_says_what_is_replaced(self, old: Path) -> None:
        asked, report = output(old, overwrite=True), Report("mcore2hf", "planned")
        asked.check()
        asked.describe(report)
        said = f"{old}: one Hugging Face model, 12 B in 4 files; it is removed once the new one is complete"
        assert [fact[:2] for fact in report.facts] == [("replaces", said)]
        assert report.data == {"replaces": {"path": str(old), "files": 4, "bytes": 12}}

    def test_a_plan_that_replaces_nothing_says_nothing(self, old: Path) -> None:
        asked, report = output(old.parent / "absent", overwrite=True), Report("mcore2hf", "planned")
        asked.check()
        asked.describe(report)
        assert not report.facts and not report.data


class TestRefused:
    def refuse(self, match: str, target: Path, hint: str = "", **options: Any) -> None:
        before = inodes(target.parent) if target.parent.exists() else None
        for attempt in (output(target, **options).check, lambda: write(target, **options)):
            with pytest.raises(TargetError, match=match) as caught:
                attempt()
            assert caught.value.hint and hint in caught.value.hint
        assert before is None or inodes(target.parent) == before

    def test_an_earlier_output(self, old: Path) -> None:
        self.refuse("not empty", old, "add --overwrite")

    def test_something_else_is_not_offered_to_be_overwritten(self, tmp_path: Path) -> None:
        self.refuse("not empty", files(tmp_path / "out", "thesis.txt"), "Name another target, or move")

    def test_something_else_is_not_overwritten(self, tmp_path: Path) -> None:
        out = files(tmp_path / "out", "thesis.txt")
        self.refuse("not one Hugging Face model and nothing else: it holds thesis.txt\n", out, overwrite=True)

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "out").touch()
        self.refuse("is a file", tmp_path / "out", overwrite=True)

    def test_the_source_itself(self, old: Path) -> None:
        self.refuse("source itself", old, sources=[old], overwrite=True)

    def test_a_target_inside_a_source(self, old: Path) -> None:
        self.refuse("inside the source", old / "out", sources=[old])

    def test_a_target_inside_a_source_by_a_link(self, old: Path) -> None:
        (old.parent / "link").symlink_to(old)
        self.refuse("inside the source", old.parent / "link" / "out", sources=[old])

    def test_a_source_inside_the_target(self, old: Path) -> None:
        (old / "source").mkdir()
        self.refuse("lies inside the target", old, sources=[old / "source"], overwrite=True)

    def test_a_mount_point(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(place.os.path, "ismount", lambda p: Path(p) == old)
        self.refuse("root of a file system", old, overwrite=True)

    def test_the_root_of_all(self) -> None:
        with pytest.raises(TargetError, match="root of a file system"):
            output(Path("/"), overwrite=True).check()

    def test_a_mount_point_below(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Such as a file that is bound over: nothing strange by its name."""
        monkeypatch.setattr(place.os.path, "ismount", lambda p: Path(p).name == "huggingface")
        save = save_directory(old.parent / "save", "release", tracker=None)
        self.refuse("mounted at", save, overwrite=True, kind=CHECKPOINT)

    def test_a_missing_parent(self, tmp_path: Path) -> None:
        self.refuse("does not exist", tmp_path / "no" / "such" / "out")

    def test_a_file_as_parent(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        self.refuse("is not a directory", tmp_path / "file" / "out")

    def test_an_unwritable_parent_names_another(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        self.refuse("not writable", tmp_path / "out", str(Path.cwd() / "out"))

    def test_the_current_directory(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(old)
        self.refuse("current directory", old, overwrite=True)

    def test_too_little_room(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="needs 1000000 TB") as caught:
            write(tmp_path / "out", need=10**18)
        assert caught.value.hint
        assert output(tmp_path / "out", need=10**18).check() == caught.value.what
        assert names(tmp_path) == []

    def test_a_name_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="cannot be made"):
            write(tmp_path / ("x" * 250))
        assert names(tmp_path) == []

    @pytest.mark.parametrize("kind", ["directory", "file", "link"])
    def test_a_partial_that_is_not_ours(self, tmp_path: Path, kind: str) -> None:
        partial = tmp_path / "out.partial"
        if kind == "directory":
            files(partial, "mine")
        elif kind == "file":
            partial.touch()
        else:
            files(tmp_path / "elsewhere", MARKER)
            partial.symlink_to("elsewhere")
        self.refuse("not left by vlconv", tmp_path / "out")


class TestFailure:
    @pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
    def test_nothing_is_left(self, old: Path, fault: type[BaseException]) -> None:
        before = inodes(old)
        with pytest.raises(fault), output(old, overwrite=True) as new:
            (new / "half").touch()
            raise fault
        assert names(old.parent) == ["out"]
        assert inodes(old) == before

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk_is_said_plainly(self, tmp_path: Path, code: int) -> None:
        with pytest.raises(TargetError, match=r"disk (is full|quota is used up)"), output(tmp_path / "out"):
            raise OSError(code, os.strerror(code))
        assert names(tmp_path) == []

    def test_a_disk_that_is_full_at_the_last_sync(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(TargetError, match="disk is full"):
            write(tmp_path / "out")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES])
    def test_a_fault_of_the_system_names_its_file(self, tmp_path: Path, code: int) -> None:
        with pytest.raises(TargetError, match="out/x cannot be written: no\n") as caught, output(tmp_path / "out"):
            raise OSError(code, "no", "out/x")
        assert caught.value.hint
        assert names(tmp_path) == []

    @pytest.mark.parametrize("last", ["deep/file", "deep", "new", "out.partial", ".vlconv-partial", ""])
    def test_a_sync_that_fails_names_its_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
        """The system is given a number, and names nothing."""
        place, fsync = str(tmp_path / last).rstrip("/"), os.fsync

        def failing(fd: int) -> None:
            if str(Path(f"/proc/self/fd/{fd}").readlink()).endswith(last or place):
                raise OSError(errno.EIO, "Input/output error")
            fsync(fd)

        monkeypatch.setattr(os, "fsync", failing)
        with (
            pytest.raises(
                TargetError, match=f"{last or tmp_path.name} cannot be written: Input/output error"
            ) as caught,
            output(tmp_path / "out") as new,
        ):
            files(new, "deep/file")
        assert "dmesg" in caught.value.hint
        assert names(tmp_path) == ([] if last else ["out"])

    def test_a_file_system_whose_directories_know_no_sync(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fsync = os.fsync

        def invalid(fd: int) -> None:
            if Path(f"/proc/self/fd/{fd}").is_dir():
                raise OSError(errno.EINVAL, "Invalid argument")
            fsync(fd)

        monkeypatch.setattr(os, "fsync", invalid)
        with output(tmp_path / "out") as new:
            files(new, "deep/file")
        assert content(tmp_path / "out") == {"deep/file": "old"}

    def test_a_file_that_knows_no_sync_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def invalid(fd: int) -> None:
            raise OSError(errno.EINVAL, "Invalid argument")

        monkeypatch.setattr(os, "fsync", invalid)
        with pytest.raises(TargetError, match=r"out\.partial/new/[a-z.]+ cannot be written: Invalid"):
            write(tmp_path / "out")
        assert names(tmp_path) == []

    def test_the_old_one_returns_when_the_second_rename_fails(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        no_exchange(monkeypatch)
        before, rename = inodes(old), Path.rename

        def second_fails(path: Path, to: Path) -> Path:
            if path.name == "new":
                raise OSError(errno.EIO, "broken")
            return rename(path, to)

        monkeypatch.setattr(Path, "rename", second_fails)
        with pytest.raises(TargetError, match="broken"):
            write(old, overwrite=True)
        assert names(old.parent) == ["out"]
        assert inodes(old) == before

    def test_a_rename_that_fails_is_told_as_it_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(path: Path, to: Path) -> Path:
            raise OSError(errno.EIO, "broken")

        monkeypatch.setattr(Path, "rename", broken)
        with pytest.raises(TargetError, match="broken"):
            write(tmp_path / "out")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("exchange", [True, False])
    def test_an_old_one_that_cannot_be_removed_is_named(
        self, old: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
    ) -> None:
        monkeypatch.setattr(directory, "remove", lambda folder: None)
        if not exchange:
            no_exchange(monkeypatch)
        whole = output(old, overwrite=True)
        with whole as new:
            hf_model(new, "new")
        assert whole.leftover == old.parent / "out.partial"
        assert content(whole.leftover / ("new" if exchange else "old")) == dict.fromkeys(MODEL, "old")
        monkeypatch.undo()
        write(old, "newer", overwrite=True)  # the next run removes it
        assert names(old.parent) == ["out"]
        assert content(old) == dict.fromkeys(MODEL, "newer")

    def test_a_new_one_leaves_nothing_over(self, tmp_path: Path) -> None:
        whole = output(tmp_path / "out")
        with whole as new:
            files(new, "file")
        assert whole.leftover is None


class TestMeanwhile:
    """A run takes hours: what came to the target in that time is nobody's to remove."""

    @pytest.mark.parametrize("exchange", [True, False])
    @pytest.mark.parametrize(
        ("name", "says"),
        [
            ("thesis.txt", "not one Hugging Face model and nothing else: it holds thesis.txt"),
            ("generation_config.json", "was changed while the new one was written"),
            ("config.json", "was changed while the new one was written"),
        ],
    )
    def test_a_target_that_changes(
        self, old: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool, name: str, says: str
    ) -> None:
        if not exchange:
            no_exchange(monkeypatch)
        with pytest.raises(TargetError, match=says) as caught, output(old, overwrite=True) as new:
            hf_model(new, "new")
            files(old, name, text="just written")
            before = inodes(old)
        assert caught.value.hint
        assert names(old.parent) == ["out"] and inodes(old) == before
        assert (old / name).read_text() == "just written"

    @pytest.mark.parametrize("overwrite", [True, False])
    @pytest.mark.parametrize("there", ["directory", "file"])
    def test_a_target_that_appears(self, tmp_path: Path, overwrite: bool, there: str) -> None:
        out = tmp_path / "out"
        with pytest.raises(TargetError, match="came into being") as caught, output(out, overwrite=overwrite) as new:
            hf_model(new)
            files(out, "thesis.txt") if there == "directory" else out.write_text("thesis")
        assert caught.value.hint and names(tmp_path) == ["out"]
        assert out.read_text() == "thesis" if there == "file" else names(out) == ["thesis.txt"]

    def test_a_target_that_goes(self, old: Path) -> None:
        with output(old, overwrite=True) as new:
            hf_model(new, "new")
            old.rename(old.parent / "elsewhere")
        assert names(old.parent) == ["elsewhere", "out"]
        assert content(old) == dict.fromkeys(MODEL, "new")


class TestAnotherUsers:
    """Made by root for another user; as any other user, an own one is made to look so."""

    @pytest.mark.parametrize("whose", ["folder", "marker", "both"])
    def test_a_partial_is_not_taken_over(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str) -> None:
        partial = files(tmp_path / "out.partial", MARKER, "new/half")
        (partial / MARKER).chmod(0o666)
        if os.geteuid() == 0:
            for path in {"folder": [partial], "marker": [partial / MARKER], "both": [partial, partial / MARKER]}[whose]:
                os.chown(path, 12345, -1)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: 12345)
        before = inodes(tmp_path)
        with pytest.raises(TargetError, match=r"out\.partial was left by a run of another user"):
            write(tmp_path / "out")
        assert inodes(tmp_path) == before

    def test_nobody_else_may_write_the_marker(self, tmp_path: Path) -> None:
        before = os.umask(0)
        try:
            with output(tmp_path / "out"):
                assert (tmp_path / "out.partial" / MARKER).stat().st_mode & 0o022 == 0
        finally:
            os.umask(before)


class TestTwoRuns:
    def test_the_second_is_refused(self, tmp_path: Path) -> None:
        with output(tmp_path / "out") as new:
            files(new, "file")
            with pytest.raises(TargetError, match="another run is writing"):
                write(tmp_path / "out")
            assert names(new) == ["file"] and names(new.parent) == [MARKER, "journal", "new"]
        assert names(tmp_path / "out") == ["file"]

    CODE = """
import os, sys
sys.path[:0] = [{tests!r}]
from pathlib import Path
from standing import output
output(Path({target!r})).__enter__()
os._exit(9)
"""

    def other(self, target: Path) -> str:
        code = self.CODE.format(tests=str(Path(__file__).parent.parent), target=str(target))
        run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        return run.stderr

    def test_in_another_process(self, tmp_path: Path) -> None:
        with output(tmp_path / "out"):
            assert "TargetError: another run is writing" in self.other(tmp_path / "out")
        assert names(tmp_path) == ["out"]

    def test_a_killed_process_leaves_no_lock(self, tmp_path: Path) -> None:
        assert self.other(tmp_path / "out") == ""
        assert names(tmp_path) == ["out.partial"]
        write(tmp_path / "out")
        assert names(tmp_path) == ["out"]

    def test_both_at_the_same_moment(self, tmp_path: Path) -> None:
        claim = Claim.new(tmp_path / "out.partial")
        with pytest.raises(TargetError, match="another run"):
            Claim.new(tmp_path / "out.partial")
        claim.release()

    def test_one_that_ends_between_our_opening_and_our_lock(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Claim.new(tmp_path / "out.partial").release()
        flock = claims.fcntl.flock

        def late(fd: int, how: int) -> None:
            (tmp_path / "out.partial" / MARKER).unlink()
            flock(fd, how)

        monkeypatch.setattr(claims.fcntl, "flock", late)
        with pytest.raises(TargetError, match="another run"):
            Claim.take(tmp_path / "out.partial")

    def test_without_locks_a_stale_partial_is_not_touched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Claim.new(tmp_path / "out.partial").release()

        def unsupported(fd: int, how: int) -> None:
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(claims.fcntl, "flock", unsupported)
        with pytest.raises(TargetError, match="cannot be locked"):
            write(tmp_path / "out")
        write(tmp_path / "other")
        assert names(tmp_path) == ["other", "out.partial"]
