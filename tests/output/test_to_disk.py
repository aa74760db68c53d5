"""What was written is brought to disk: in which order, how many at a time, and what is told meanwhile."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters import Phase
from vlconv.converters.output import to_disk
from vlconv.converters.output.to_disk import bring_to_disk
from vlconv.converters.report import Silent


class Watch(Silent):
    def __init__(self) -> None:
        self.told: list[Any] = []

    def phase(self, phase: Phase) -> None:
        self.told.append(phase)

    def progress(self, done: int, total: int) -> None:
        self.told.append((done, total))


def name_of(fd: int) -> str:
    return Path(f"/proc/self/fd/{fd}").readlink().name


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, nbytes in (("a", 10), ("deep/b", 20), ("deep/deeper/c", 30), ("other/d", 0)):
        path = tmp_path / "root" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(nbytes))
    return tmp_path / "root"


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the system was asked for, in order."""
    seen: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(name_of(fd)))
    return seen


def test_what_is_inside_before_what_it_is_in(root: Path, events: list[str]) -> None:
    bring_to_disk(root, Silent())
    assert sorted(events) == ["a", "b", "c", "d", "deep", "deeper", "other", "root"]
    assert set(events[:4]) == {"a", "b", "c", "d"}
    assert events.index("deeper") < events.index("deep") < events.index("root") == 7


def test_what_a_link_leads_to_is_not_ours(root: Path, events: list[str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"x")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    watch = Watch()
    bring_to_disk(root, watch)
    assert "elsewhere" not in events and watch.told[-1] == (60, 60)


def test_a_folder_that_cannot_be_looked_through(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def failing(path: str) -> Any:
        if Path(path).name == "deeper":
            raise OSError(errno.EIO, "Input/output error", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(OSError, match="deeper"):
        bring_to_disk(root, Silent())


def test_nothing_at_all(tmp_path: Path, events: list[str]) -> None:
    watch = Watch()
    bring_to_disk(tmp_path, watch)
    assert events == [tmp_path.name] and watch.told[-1] == (0, 0)


def test_several_at_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of the four files waits for the others."""
    together = threading.Barrier(4, timeout=20)
    monkeypatch.setattr(os, "fsync", lambda fd: together.wait() if len(name_of(fd)) == 1 else None)
    bring_to_disk(root, Silent())


def test_is_told(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that brings one file after the other."""
    monkeypatch.setattr(to_disk, "AT_ONCE", 1)
    monkeypatch.setattr("vlconv.converters.crew.EVERY", 0.001)
    watch, sizes = Watch(), list[int]()

    def slow(fd: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            until(lambda: watch.told[-1] == (sum(sizes), 60))
            sizes.append(os.fstat(fd).st_size)

    monkeypatch.setattr(os, "fsync", slow)
    bring_to_disk(root, watch)
    assert watch.told[:2] == [Phase.BRINGING_TO_DISK, (0, 60)] and watch.told[-1] == (60, 60)
    assert sorted(sizes) == [0, 10, 20, 30]


class TestPieces:
    """Of a file larger than that: the system is asked for one after the other, and then for all."""

    Call = Callable[[int, int, int, int], int]

    @pytest.fixture(autouse=True)
    def small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(to_disk, "PIECE", 12)
        monkeypatch.setattr(to_disk, "AT_ONCE", 1)
        monkeypatch.setattr("vlconv.converters.crew.EVERY", 0.001)

    def given(self, monkeypatch: pytest.MonkeyPatch, call: Call | None) -> None:
        class Library:
            def __init__(self, *_: object, **__: object) -> None:
                if call:
                    self.sync_file_range = lambda *a: call(*a)

        monkeypatch.setattr(to_disk.ctypes, "CDLL", Library)

    def test_each_once_and_the_file_after_them(
        self, root: Path, events: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def call(fd: int, at: int, nbytes: int, flags: int) -> int:
            if flags:
                events.append(f"{name_of(fd)} {at} {nbytes} {flags}")
            return 0

        self.given(monkeypatch, call)
        watch = Watch()
        bring_to_disk(root, watch)
        assert [event for event in events if event[0] == "c"] == ["c 0 12 7", "c 12 12 7", "c 24 6 7", "c"]
        assert [event for event in events if event[0] == "b"] == ["b 0 12 7", "b 12 8 7", "b"] and "a" in events
        assert watch.told[-1] == (60, 60)

    def test_each_is_told(self, root: Path, events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """Before the fsync of the file, which is the first: nothing is inside as deep."""
        watch, begun = Watch(), list[int]()

        def call(fd: int, at: int, nbytes: int, flags: int) -> int:
            if flags and name_of(fd) == "c":
                until(lambda: not at or watch.told[-1] == (at, 60))
                begun.append(at)
            return 0

        self.given(monkeypatch, call)
        bring_to_disk(root, watch)
        assert begun == [0, 12, 24]

    @pytest.mark.parametrize("library", [None, lambda fd, at, nbytes, flags: -1], ids=["has none", "refuses it"])
    def test_without_them(
        self, root: Path, events: list[str], monkeypatch: pytest.MonkeyPatch, library: Call | None
    ) -> None:
        self.given(monkeypatch, library)
        watch = Watch()
        bring_to_disk(root, watch)
        assert sorted(events)[:4] == ["a", "b", "c", "d"] and watch.told[-1] == (60, 60)

    def test_what_the_disk_says_is_said(self, root: Path, events: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        """The system says it once: an fsync afterwards would find nothing wrong."""

        def call(fd: int, at: int, nbytes: int, flags: int) -> int:
            return -1 if flags and name_of(fd) == "c" and at == 12 else 0

        self.given(monkeypatch, call)
        monkeypatch.setattr(to_disk.ctypes, "get_errno", lambda: errno.EIO)
        with pytest.raises(OSError, match="Input/output error") as caught:
            bring_to_disk(root, Silent())
        assert caught.value.errno == errno.EIO and caught.value.filename == str(root / "deep/deeper/c")
        assert "c" not in events and "deep" not in events

    def test_by_the_system_itself(self, root: Path) -> None:
        watch = Watch()
        bring_to_disk(root, watch)
        assert watch.told[-1] == (60, 60)
