"""Taking the place in one step: what is on disk when, and a rerun after a kill at each call that changes the disk."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from standing import TRACKER, add, content, files, hf_model, inodes, iteration, names, output, save_directory, write

from vlconv.converters.errors import TargetError
from vlconv.converters.formats.directory.unfinished import MARKER
from vlconv.converters.output.staging import atomic_swap as swap
from vlconv.converters.output.staging.atomic_swap import Step, conclude
from vlconv.converters.output.staging.claim import Claim, Note

SAMPLED = 2


def no_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swap, "exchange", lambda a, b: False)


def test_the_kernel_exchanges(tmp_path: Path) -> None:
    files(tmp_path, "a/a", "b/b")
    if not swap.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system has no RENAME_EXCHANGE")
    assert (names(tmp_path / "a"), names(tmp_path / "b")) == (["b"], ["a"])


def test_what_cannot_be_exchanged_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(FileNotFoundError):
        swap.exchange(tmp_path / "a", tmp_path / "b")


class TestOnDisk:
    """What a power cut must find: each step is on disk before the next one builds on it."""

    @pytest.fixture
    def events(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Renames and syncs, in order: "old" is the place before it is replaced."""
        seen: list[str] = []
        rename, fsync = Path.rename, os.fsync

        def renamed(path: Path, to: Path) -> Path:
            seen.append(f"{path.name} -> {to.name}")
            return rename(path, to)

        def synced(fd: int) -> None:
            seen.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink().name}")
            fsync(fd)

        monkeypatch.setattr(Path, "rename", renamed)
        monkeypatch.setattr(os, "fsync", synced)
        return seen

    def test_two_renames(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, events: list[str]) -> None:
        no_exchange(monkeypatch)
        hf_model(tmp_path / "parent" / "out")
        write(tmp_path / "parent" / "out", overwrite=True)
        first = events.index("out -> old")
        assert events[first - 2 : first] == ["sync out.partial", f"sync {MARKER}"]
        assert events[first:] == ["out -> old", "sync out.partial", "sync parent", "new -> out", "sync parent"]
        assert {"sync new", "sync model.safetensors"} <= set(events[:first])

    def test_one_rename(self, tmp_path: Path, events: list[str]) -> None:
        (tmp_path / "parent").mkdir()
        write(tmp_path / "parent" / "out")
        assert events[-4:] == ["sync out.partial", f"sync {MARKER}", "new -> out", "sync parent"]

    def test_an_iteration(self, tmp_path: Path, events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        replace = Path.replace
        monkeypatch.setattr(Path, "replace", lambda a, b: events.append(f"{a.name} => {b.name}") or replace(a, b))
        save = save_directory(tmp_path / "save", "iter_0000005", tracker="5")
        add(save, set_latest=True)
        gathered = events.index("huggingface -> huggingface")
        assert events.index("sync iter_0000010") > gathered
        assert events[-6:] == [
            "sync .iter_0000010.partial",
            f"sync {MARKER}",
            "iter_0000010 -> iter_0000010",
            "sync save",
            f"{TRACKER} => {TRACKER}",
            "sync save",
        ]
        assert f"sync {TRACKER}" in events

    def test_an_old_one_that_is_put_back(self, tmp_path: Path, events: list[str]) -> None:
        (tmp_path / "parent").mkdir()
        files(tmp_path / "parent" / "out.partial", MARKER, "old/x", "new/x")
        swap.recover(Step(tmp_path / "parent" / "out", tmp_path / "parent" / "out.partial"))
        assert events == ["old -> out", "sync parent"]


class TestNote:
    @pytest.fixture
    def claim(self, tmp_path: Path) -> Iterator[Claim]:
        claim = Claim.new(tmp_path / "out.partial")
        yield claim
        claim.release()

    @pytest.mark.parametrize("note", [Note(5), Note(2**63, True, "release"), Note(7, True, None)])
    def test_it_is_kept(self, claim: Claim, note: Note) -> None:
        assert claim.note is None
        claim.note = Note(1, True, "a longer word than the next one")
        claim.note = note
        assert claim.note == note

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "3",
            "[]",
            '{"replaces": 3}',
            '{"installed": "3"}',
            '{"installed": true}',
            '{"installed": 3, "x": 1}',
            '{"installed": 3, "latest": 5}',
            '{"installed": 3, "sets_latest": 1}',
            "\xff",
        ],
    )
    def test_a_damaged_one_says_nothing(self, claim: Claim, tmp_path: Path, text: str) -> None:
        (tmp_path / "out.partial" / MARKER).write_text(text, encoding="latin-1")
        assert claim.note is None


class TestConclude:
    """What is not certain to be a killed run's is left as it is."""

    def conclude(self, step: Step, note: Note | None) -> None:
        claim = Claim.take(step.staging)
        assert claim
        if note:
            claim.note = note
        conclude(step, claim)
        claim.release()

    def test_a_place_that_somebody_removed_stays_removed(self, tmp_path: Path) -> None:
        """The second rename was done, so the old directory is not to return."""
        step = Step(tmp_path / "out", files(tmp_path / "out.partial", MARKER, "old/x"))
        self.conclude(step, Note(3))
        assert names(tmp_path) == ["out.partial"]

    def test_a_tracker_that_moved_on_stays(self, tmp_path: Path) -> None:
        """A trainer saved after the kill: its word is newer."""
        save = save_directory(tmp_path / "save", "iter_0000010", "iter_0000020", tracker="20")
        staging = files(save / ".iter_0000010.partial", MARKER, f"new/{TRACKER}", text="10")
        step = Step(save / "iter_0000010", staging, "iter_0000010")
        self.conclude(step, Note((save / "iter_0000010").stat().st_ino, True, "5"))
        assert (save / TRACKER).read_text() == "20"
        self.conclude(step, Note((save / "iter_0000010").stat().st_ino, False, "20"))
        assert (save / TRACKER).read_text() == "20"
        self.conclude(step, Note((save / "iter_0000010").stat().st_ino + 1, True, "20"))
        assert (save / TRACKER).read_text() == "20"
        self.conclude(step, Note((save / "iter_0000010").stat().st_ino, True, "20"))
        assert (save / TRACKER).read_text() == "10"


def killed(run: Callable[[], None], at: int) -> bool:
    """Run in a process of its own that dies before its call number `at` that changes the disk; whether it got there."""
    process = os.fork()
    if process == 0:
        calls = iter(range(1, 10**6))

        def count() -> None:
            if next(calls) == at:
                os._exit(9)

        def audit(event: str, args: tuple[object, ...]) -> None:
            if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "ctypes.dlopen") or (
                event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)
            ):
                count()

        os.fsync = lambda fd: count()  # type: ignore[assignment,misc]
        sys.addaudithook(audit)
        try:
            run()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, 9)
    return code == 9


class TestKilled:
    """From every state that a kill can leave, whatever is there is whole, and a rerun brings it to the end."""

    @pytest.fixture(autouse=True)
    def no_sync(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kill leaves what the system was told; waiting for the disk would only take time."""
        monkeypatch.setattr(os, "fsync", lambda fd: None)

    @pytest.fixture(params=[True, False], ids=["exchange", "two renames"])
    def exchange(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
        if not request.param:
            no_exchange(monkeypatch)
        return bool(request.param)

    def each(self, work: Path, stand: Callable[[Path], Path], run: Callable[[Path], object]) -> Iterator[Path]:
        """The directory that holds what stands there, after a kill at each call."""
        for at in range(1, 1000):
            stand(work / str(at))
            if not killed(lambda at=at: run(work / str(at)), at):
                shutil.rmtree(work / str(at))
                assert at > 20
                return
            yield work / str(at)

    def test_a_new_target(self, tmp_path: Path) -> None:
        def stand(folder: Path) -> Path:
            folder.mkdir()
            return folder

        seen = set()
        for folder in self.each(tmp_path, stand, lambda f: write(f / "out")):
            there = (folder / "out").exists()
            seen.add(there)
            if there:
                assert set(content(folder / "out").values()) == {"new"} and len(names(folder / "out")) == 4
            write(folder / "out", "newer", overwrite=there)
            assert names(folder) == ["out"] and set(content(folder / "out").values()) == {"newer"}
        assert seen == {True, False}

    def test_an_overwritten_target(self, tmp_path: Path, exchange: bool) -> None:
        seen = set()
        for folder in self.each(
            tmp_path, lambda f: hf_model(f / "out").parent, lambda f: write(f / "out", overwrite=True)
        ):
            found = content(folder / "out") if (folder / "out").exists() else {}
            assert len(found) in (0, 4) and len(set(found.values())) < 2
            state = next(iter(found.values()), "absent")
            seen.add(state)
            with pytest.raises(TargetError, match="not empty"):
                write(folder / "out")  # even a run that may not overwrite puts the old one back first
            assert names(folder) == ["out"]
            assert set(content(folder / "out").values()) == {"new" if state == "new" else "old"}
            write(folder / "out", "newer", overwrite=True)
            assert names(folder) == ["out"] and set(content(folder / "out").values()) == {"newer"}
        assert seen == {"old", "new"} if exchange else {"old", "absent", "new"}

    OLD = ("iter_0000005", "iter_0000008")

    @pytest.mark.parametrize(
        ("set_latest", "tracker"),
        [
            (True, "8"),
            pytest.param(True, None, marks=pytest.mark.slow),
            pytest.param(False, "8", marks=pytest.mark.slow),
        ],
    )
    def test_an_added_iteration(self, tmp_path: Path, set_latest: bool, tracker: str | None) -> None:
        seen = self.iterations(tmp_path, set_latest, False, tracker)
        assert seen == {(tracker,), ("new", tracker)} | ({("new", "10")} if set_latest else set())

    @pytest.mark.parametrize("set_latest", [True, False])
    def test_a_replaced_iteration(self, tmp_path: Path, exchange: bool, set_latest: bool) -> None:
        seen = self.iterations(tmp_path, set_latest, True, "8")
        expected = {("old", "8"), ("new", "8")} | ({("new", "10")} if set_latest else set())
        assert seen == expected | (set() if exchange else {("8",)})

    def iterations(
        self, tmp_path: Path, set_latest: bool, replaced: bool, tracker: str | None
    ) -> set[tuple[str | None, ...]]:
        """What iteration 10 held and the tracker file said, over all kills."""

        def stand(folder: Path) -> Path:
            save_directory(folder / "save", *self.OLD, tracker=tracker)
            if replaced:
                iteration(folder / "save" / "iter_0000010", "old")
            return folder

        def others(save: Path) -> dict[str, str]:
            return {
                name: text
                for name, text in content(save).items()
                if name != TRACKER and not name.startswith(("iter_0000010", ".iter_0000010.partial"))
            }

        stand(tmp_path / "untouched")
        untouched, seen = others(tmp_path / "untouched" / "save"), set()
        for folder in self.each(tmp_path, stand, lambda f: add(f / "save", set_latest=set_latest, overwrite=replaced)):
            save = folder / "save"
            there = set(content(save / "iter_0000010").values()) if (save / "iter_0000010").exists() else set()
            says = (save / TRACKER).read_text() if (save / TRACKER).exists() else None
            assert others(save) == untouched and len(there) < 2
            assert says == tracker or (says == "10" and there == {"new"} and set_latest)
            seen.add((*there, says))
            done = there == {"new"}
            if done or replaced:
                with pytest.raises(TargetError, match="iter_0000010 exists"):
                    add(save)
                assert set(content(save / "iter_0000010").values()) == {"new" if done else "old"}
                if done:
                    assert ((save / TRACKER).read_text() if (save / TRACKER).exists() else None) == (
                        "10" if set_latest else tracker
                    )
            add(save, text="newer", set_latest=set_latest, overwrite=True)
            assert others(save) == untouched and set(content(save / "iter_0000010").values()) == {"newer"}
            assert names(save) == sorted(
                [*self.OLD, "iter_0000010", "huggingface", *([TRACKER] if tracker or set_latest else [])]
            )
        return seen

    def test_before_the_marker(self, tmp_path: Path) -> None:
        (tmp_path / "out.partial").mkdir()
        write(tmp_path / "out")
        assert names(tmp_path) == ["out"]

    def test_a_stale_staging_directory_of_the_whole_goes_before_an_iteration_comes(self, tmp_path: Path) -> None:
        """A killed run that replaced the whole save directory is brought to its end first."""
        save_directory(tmp_path / "out.partial" / "old", "iter_0000005", tracker="5")
        files(tmp_path / "out.partial", MARKER, "new/release/.metadata")
        add(tmp_path / "out")
        assert names(tmp_path) == ["out"]
        assert names(tmp_path / "out") == ["huggingface", "iter_0000005", "iter_0000010", TRACKER]

    def test_somebody_elses_partial_beside_a_save_directory_is_left_alone(self, tmp_path: Path) -> None:
        save_directory(tmp_path / "save", "iter_0000005", tracker="5")
        before = inodes(files(tmp_path / "save.partial", "mine"))
        add(tmp_path / "save")
        assert inodes(tmp_path / "save.partial") == before

    def test_a_damaged_marker_removes_nothing_of_others(self, tmp_path: Path) -> None:
        files(tmp_path, f"out.partial/{MARKER}", "out.mine/x", text='{"installed": "x"')
        hf_model(tmp_path / "out")
        write(tmp_path / "out", overwrite=True)
        assert names(tmp_path) == ["out", "out.mine"]


def test_an_iteration_that_is_there_but_for_its_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tracker cannot be replaced: the iteration stays, the error is told, and the next run ends it."""
    save = save_directory(tmp_path / "save", "iter_0000005", tracker="5")

    def broken(path: Path, to: Path) -> Path:
        raise PermissionError(13, "Permission denied", str(to))

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(TargetError, match=f"{TRACKER} cannot be written: Permission"):
        add(save, set_latest=True)
    assert (save / TRACKER).read_text() == "5" and set(content(save / "iter_0000010").values()) == {"new"}
    monkeypatch.undo()
    with pytest.raises(TargetError, match="exists"):
        add(save)
    assert (save / TRACKER).read_text() == "10"
    assert names(save) == ["huggingface", "iter_0000005", "iter_0000010", TRACKER]


def test_ctrl_c_between_the_iteration_and_its_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has taken its place is finished, not undone."""
    save = save_directory(tmp_path / "save", "iter_0000005", tracker="5")
    sync = swap.sync

    def interrupted(folder: Path) -> None:
        sync(folder)
        if (save / "iter_0000010").exists():
            monkeypatch.setattr(swap, "sync", sync)
            raise KeyboardInterrupt

    monkeypatch.setattr(swap, "sync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        add(save, set_latest=True)
    assert (save / TRACKER).read_text() == "10"
    assert names(save) == ["huggingface", "iter_0000005", "iter_0000010", TRACKER]
    assert output(tmp_path / "other").check() == ""
