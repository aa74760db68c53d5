"""The output directory: absent or complete, whatever happens."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.errors import TargetError
from vlconv.converters.output import atomic_swap as swap
from vlconv.converters.output import directory as output
from vlconv.converters.output.atomic_swap import MARKER, Claim
from vlconv.converters.output.directory import OutputDirectory


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write(target: Path, text: str = "new", **options: Any) -> None:
    with OutputDirectory(target, **options) as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text(text)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A target that holds something."""
    target = tmp_path / "out"
    target.mkdir()
    (target / "precious").write_text("old")
    return target


def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "exchange", lambda a, b: False)


class TestHappy:
    def test_appears_whole_and_alone(self, tmp_path: Path) -> None:
        with OutputDirectory(tmp_path / "out") as partial:
            assert partial == tmp_path / "out.partial"
            (partial / "file").write_text("new")
            assert not (tmp_path / "out").exists()
        assert names(tmp_path) == ["out"]
        assert names(tmp_path / "out") == ["file"]

    def test_an_empty_directory_is_a_fine_target(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        write(tmp_path / "out")
        assert names(tmp_path) == ["out"]
        assert names(tmp_path / "out") == ["deep"]

    def test_a_link_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "there").mkdir()
        (tmp_path / "link").symlink_to("there")
        write(tmp_path / "link")
        assert names(tmp_path) == ["link", "there"]
        assert names(tmp_path / "there") == ["deep"]

    @pytest.mark.parametrize("exchange", [True, False])
    def test_overwrite_replaces_all_of_the_old_one(
        self, old: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool
    ) -> None:
        if not exchange:
            no_exchange(monkeypatch)
        with OutputDirectory(old, overwrite=True) as partial:
            (partial / "file").write_text("new")
            assert names(old) == ["precious"]
        assert names(old.parent) == ["out"]
        assert names(old) == ["file"]

    def test_the_kernel_exchanges(self, tmp_path: Path) -> None:
        for name in "ab":
            (tmp_path / name).mkdir()
            (tmp_path / name / name).touch()
        if not swap.exchange(tmp_path / "a", tmp_path / "b"):
            pytest.skip("this file system has no RENAME_EXCHANGE")
        assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])

    def test_somebody_elses_old_is_left_alone(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        no_exchange(monkeypatch)
        (old.parent / "out.old").mkdir()
        write(old, overwrite=True)
        assert names(old.parent) == ["out", "out.old"]

    def test_every_file_and_directory_is_synced(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced = set()
        monkeypatch.setattr(os, "fsync", lambda fd: synced.add(str(Path(f"/proc/self/fd/{fd}").readlink())))
        write(tmp_path / "out")
        partial = f"{tmp_path}/out.partial"
        assert synced >= {partial, f"{partial}/deep", f"{partial}/deep/file", str(tmp_path)}


class TestRefused:
    def refuse(self, match: str, target: Path, **options: Any) -> None:
        before = sorted(target.parent.rglob("*")) if target.parent.exists() else None
        for attempt in (OutputDirectory(target, **options).check, lambda: write(target, **options)):
            with pytest.raises(TargetError, match=match) as caught:
                attempt()
            assert caught.value.hint
        assert before is None or sorted(target.parent.rglob("*")) == before

    def test_a_target_that_holds_something(self, old: Path) -> None:
        self.refuse("not empty", old)

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
        monkeypatch.setattr(output.os.path, "ismount", lambda p: Path(p) == old)
        self.refuse("root of a file system", old, overwrite=True)

    def test_the_root_of_all(self) -> None:
        with pytest.raises(TargetError, match="root of a file system"):
            OutputDirectory(Path("/"), overwrite=True).check()

    def test_a_mount_point_below(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (old / "disk").mkdir()
        monkeypatch.setattr(output.os.path, "ismount", lambda p: Path(p).name == "disk")
        self.refuse("mounted at", old, overwrite=True)

    def test_a_missing_parent(self, tmp_path: Path) -> None:
        self.refuse("does not exist", tmp_path / "no" / "such" / "out")

    def test_a_file_as_parent(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        self.refuse("is not a directory", tmp_path / "file" / "out")

    def test_an_unwritable_parent_names_another(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
        with pytest.raises(TargetError, match="not writable") as caught:
            write(tmp_path / "out")
        assert str(Path.cwd() / "out") in caught.value.hint

    def test_the_current_directory(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(old)
        self.refuse("current directory", old, overwrite=True)

    def test_too_little_room(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="needs 1000000 TB") as caught:
            write(tmp_path / "out", need=10**18)
        assert caught.value.hint
        assert OutputDirectory(tmp_path / "out", need=10**18).check() == caught.value.what
        assert names(tmp_path) == []

    def test_a_name_too_long(self, tmp_path: Path) -> None:
        with pytest.raises(TargetError, match="cannot be made"):
            write(tmp_path / ("x" * 250))
        assert names(tmp_path) == []

    @pytest.mark.parametrize("kind", ["directory", "file", "link"])
    def test_a_partial_that_is_not_ours(self, tmp_path: Path, kind: str) -> None:
        partial = tmp_path / "out.partial"
        if kind == "directory":
            partial.mkdir()
            (partial / "mine").touch()
        elif kind == "file":
            partial.touch()
        else:
            (tmp_path / "elsewhere").mkdir()
            (tmp_path / "elsewhere" / MARKER).touch()
            partial.symlink_to("elsewhere")
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(TargetError, match="not left by vlconv"):
            write(tmp_path / "out")
        assert sorted(tmp_path.rglob("*")) == before


class TestFailure:
    @pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt, SystemExit])
    def test_nothing_is_left(self, old: Path, fault: type[BaseException]) -> None:
        with pytest.raises(fault), OutputDirectory(old, overwrite=True) as partial:
            (partial / "half").touch()
            raise fault
        assert names(old.parent) == ["out"]
        assert names(old) == ["precious"]

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
    def test_a_full_disk_is_said_plainly(self, tmp_path: Path, code: int) -> None:
        with pytest.raises(TargetError, match=r"disk (is full|quota is used up)"), OutputDirectory(tmp_path / "out"):
            raise OSError(code, os.strerror(code))
        assert names(tmp_path) == []

    def test_a_disk_that_is_full_at_the_last_sync(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(fd: int) -> None:
            raise OSError(errno.ENOSPC, "full")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(TargetError, match="disk is full"):
            write(tmp_path / "out")
        assert names(tmp_path) == []

    def test_other_errors_stay_what_they_are(self, tmp_path: Path) -> None:
        with pytest.raises(PermissionError), OutputDirectory(tmp_path / "out"):
            raise PermissionError(errno.EACCES, "no", "source")

    def test_the_old_one_returns_when_the_second_rename_fails(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        no_exchange(monkeypatch)
        rename = Path.rename

        def second_fails(path: Path, to: Path) -> Path:
            if path.name == "out.partial":
                raise OSError(errno.EIO, "broken")
            return rename(path, to)

        monkeypatch.setattr(Path, "rename", second_fails)
        with pytest.raises(OSError, match="broken"):
            write(old, overwrite=True)
        assert names(old.parent) == ["out"]
        assert names(old) == ["precious"]

    def test_an_old_one_that_cannot_be_removed_is_named(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(swap, "remove", lambda folder: None)
        whole = OutputDirectory(old, overwrite=True)
        with whole as partial:
            (partial / "file").touch()
        assert whole.leftover is not None
        assert names(whole.leftover) == ["precious"]
        monkeypatch.undo()
        write(old, overwrite=True)  # the next run removes it
        assert names(old.parent) == ["out"]
        assert names(old) == ["deep"]


class Killed(BaseException):
    """Stands for a kill: whatever would clean up is switched off."""


class TestKilled:
    """A rerun finishes from every state a kill can leave."""

    def kill(self, monkeypatch: pytest.MonkeyPatch, target: Path, at: str, exchange: bool = True) -> None:
        """Run until the named call, then die there."""

        def die(*args: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            if not exchange:
                no_exchange(patch)
            if at == "second rename":
                rename = Path.rename
                patch.setattr(
                    Path, "rename", lambda p, to: die() if p.name == "out.partial" or to == target else rename(p, to)
                )
            else:
                patch.setattr(
                    *{
                        "write": (Path, "write_text"),
                        "install": (output, "install"),
                        "tidy": (swap, "remove"),
                        "marker": (Path, "unlink"),
                    }[at],
                    die,
                )
            patch.setattr(output, "remove", lambda folder: None)
            with pytest.raises(Killed):
                write(target, overwrite=True)

    @pytest.mark.parametrize("at", ["write", "install", "marker"])
    def test_a_new_target(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str) -> None:
        self.kill(monkeypatch, tmp_path / "out", at)
        assert (tmp_path / "out").exists() == (at == "marker")
        write(tmp_path / "out", overwrite=True)
        assert names(tmp_path) == ["out"]
        assert names(tmp_path / "out") == ["deep"]

    @pytest.mark.parametrize("exchange", [True, False])
    @pytest.mark.parametrize("at", ["write", "install", "tidy", "marker"])
    def test_an_overwritten_target(self, old: Path, monkeypatch: pytest.MonkeyPatch, at: str, exchange: bool) -> None:
        self.kill(monkeypatch, old, at, exchange)
        assert (old / "precious").exists() == (at in ("write", "install"))
        write(old, "newer", overwrite=True)
        assert names(old.parent) == ["out"]
        assert (old / "deep" / "file").read_text() == "newer"

    def test_between_two_renames_the_old_one_is_put_back(self, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kill(monkeypatch, old, "second rename", exchange=False)
        assert names(old.parent) == ["out.old", "out.partial"]
        with pytest.raises(TargetError, match="not empty"):
            write(old)  # even a run that may not overwrite puts it back first
        assert names(old.parent) == ["out"]
        assert names(old) == ["precious"]

    def test_before_the_marker(self, tmp_path: Path) -> None:
        (tmp_path / "out.partial").mkdir()
        write(tmp_path / "out")
        assert names(tmp_path) == ["out"]

    def test_a_damaged_marker_removes_nothing_of_others(self, old: Path) -> None:
        (old / MARKER).write_text('{"replaces": "x"')
        (old.parent / "out.mine").mkdir()
        write(old, overwrite=True)
        assert names(old.parent) == ["out", "out.mine"]


class TestTwoRuns:
    def test_the_second_is_refused(self, tmp_path: Path) -> None:
        with OutputDirectory(tmp_path / "out") as partial:
            (partial / "file").touch()
            with pytest.raises(TargetError, match="another run is writing"):
                write(tmp_path / "out")
            assert names(partial) == [MARKER, "file"]
        assert names(tmp_path / "out") == ["file"]

    def test_in_another_process(self, tmp_path: Path) -> None:
        code = f"from pathlib import Path; from vlconv.converters.output.directory import OutputDirectory as O; O(Path({str(tmp_path / 'out')!r})).__enter__()"
        with OutputDirectory(tmp_path / "out"):
            other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "TargetError: another run is writing" in other.stderr
        assert names(tmp_path) == ["out"]

    def test_a_killed_process_leaves_no_lock(self, tmp_path: Path) -> None:
        target = tmp_path / "out"
        code = (
            "import os; from pathlib import Path; from vlconv.converters.output.directory import OutputDirectory as O; "
            f"O(Path({str(target)!r})).__enter__(); os._exit(9)"
        )
        subprocess.run([sys.executable, "-c", code], check=False)
        assert names(tmp_path) == ["out.partial"]
        write(target)
        assert names(tmp_path) == ["out"]

    def test_both_at_the_same_moment(self, tmp_path: Path) -> None:
        claim = Claim.new(tmp_path / "out.partial")
        with pytest.raises(TargetError, match="another run"):
            Claim.new(tmp_path / "out.partial")
        claim.release()

    def test_without_locks_a_stale_partial_is_not_touched(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Claim.new(tmp_path / "out.partial").release()

        def unsupported(fd: int, how: int) -> None:
            raise OSError(errno.ENOLCK, "no locks")

        monkeypatch.setattr(swap.fcntl, "flock", unsupported)
        with pytest.raises(TargetError, match="cannot be locked"):
            write(tmp_path / "out")
        write(tmp_path / "other")
        assert names(tmp_path) == ["other", "out.partial"]
