"""A signal at any step of writing a directory: the old one or the new one stands there, and nothing beside it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from standing import content, files, hf_model, inodes, iteration, names, output, save_directory
from stepping import signal_at

from vlconv.converters.errors import TargetError
from vlconv.converters.output import directory
from vlconv.converters.output.directory import OutputDirectory
from vlconv.converters.output.replaceable import CHECKPOINT, HF_MODEL
from vlconv.converters.output.staging import atomic_swap
from vlconv.converters.output.target import Target
from vlconv.converters.report import Silent


class Came(BaseException):
    pass


@pytest.fixture(autouse=True)
def once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A handler of SIGTERM that raises."""

    def come(number: int, frame: FrameType | None) -> None:
        raise Came

    before = signal.signal(signal.SIGTERM, come)
    monkeypatch.setattr(os, "fsync", lambda fd: None)
    yield
    signal.signal(signal.SIGTERM, before)


def interrupt() -> None:
    signal.raise_signal(signal.SIGTERM)


def write(path: Path, fill: Callable[[Path], object] = lambda new: hf_model(new, "new"), **target: Any) -> list[str]:
    """Write as a conversion does; what was told of it."""
    told: list[str] = []
    observer = Silent()
    observer.written = lambda place: told.append("written")  # type: ignore[attr-defined]
    whole = OutputDirectory(Target(path=path, **{"kind": HF_MODEL, **target}), observer=observer)
    try:
        with whole as new:
            fill(new)
    except BaseException as fault:
        whole.abandon(fault)
        fault.told = told  # type: ignore[attr-defined]
        raise
    return told


def add(save: Path) -> None:
    def fill(new: Path) -> None:
        iteration(new / "iter_0000010", "new")
        files(new, "latest_checkpointed_iteration.txt", text="10")

    write(save, fill, kind=CHECKPOINT, iteration=10, set_latest=True)


class TestTheLastStep:
    """The output takes its place: what comes meanwhile waits."""

    @pytest.mark.parametrize("step", ["swap", "conclude"])
    def test_a_signal_comes_after_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
        done = getattr(directory, step)

        def interrupted(*args: object, **options: object) -> object:
            monkeypatch.setattr(directory, step, done)
            interrupt()
            return done(*args, **options)

        monkeypatch.setattr(directory, step, interrupted)
        hf_model(tmp_path / "out")
        with pytest.raises(Came) as caught:
            write(tmp_path / "out", overwrite=True)
        assert caught.value.told == ["written"]
        assert names(tmp_path) == ["out"] and set(content(tmp_path / "out").values()) == {"new"}
        assert caught.value.__notes__ == [f"{tmp_path / 'out'} is in its place, complete."]

    def test_one_before_it_leaves_the_old_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "fsync", lambda fd: interrupt())
        before = inodes(hf_model(tmp_path / "out"))
        with pytest.raises(Came) as caught:
            write(tmp_path / "out", overwrite=True)
        assert names(tmp_path) == ["out"] and inodes(tmp_path / "out") == before
        assert not hasattr(caught.value, "__notes__")

    def test_a_second_one_does_not_stop_the_clearing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        done = directory.remove

        def interrupted(folder: Path) -> None:
            interrupt()
            done(folder)

        monkeypatch.setattr(directory, "remove", interrupted)
        with pytest.raises(Came), output(tmp_path / "out") as new:
            hf_model(new)
            interrupt()
        assert names(tmp_path) == []

    def test_handlers_are_as_before(self, tmp_path: Path) -> None:
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = [signal.getsignal(n) for n in numbers]
        assert write(tmp_path / "out") == ["written"]
        assert [signal.getsignal(n) for n in numbers] == before

    def test_in_a_thread_of_its_own(self, tmp_path: Path) -> None:
        thread = threading.Thread(target=write, args=(tmp_path / "out",))
        thread.start()
        thread.join()
        assert names(tmp_path) == ["out"]


class TestTold:
    """What an exception says that was left."""

    def test_what_cannot_be_removed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(directory, "remove", lambda folder: None)
        with pytest.raises(Came) as caught, output(tmp_path / "out"):
            interrupt()
        said = f"{tmp_path / 'out.partial'} was left behind: the next run to that target goes on with it or removes it."
        assert caught.value.__notes__ == [said]

    def test_what_a_killed_run_left_and_is_not_gone(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        files(tmp_path, "out.partial/.vlconv-partial", "out.partial/new/half")
        monkeypatch.setattr(atomic_swap, "_discard", lambda folder: interrupt())
        with pytest.raises(Came) as caught:
            write(tmp_path / "out")
        assert "out.partial was left behind" in caught.value.__notes__[0]

    def test_another_runs_is_not_said_to_be_left(self, tmp_path: Path) -> None:
        with output(tmp_path / "out"):
            with pytest.raises(TargetError, match="another run") as caught:
                write(tmp_path / "out")
            assert not hasattr(caught.value, "__notes__")
            assert names(tmp_path) == ["out.partial"]


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Exceptions that Python drops, as every one that comes while an object is freed; the command line tells them."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda lost: found.append(lost.exc_type))
    return found


@pytest.mark.parametrize(
    ("first", "every"),
    [pytest.param(1, 23, id="some"), *(pytest.param(n, 5, marks=pytest.mark.slow) for n in range(1, 6))],
)
@pytest.mark.parametrize("exchange", [True, False], ids=["exchange", "two renames"])
def test_at_any_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropped: list[Any], exchange: bool, first: int, every: int
) -> None:
    if not exchange:
        monkeypatch.setattr(atomic_swap, "exchange", lambda a, b: False)
    seen, at, more = set(), first, True
    while more:
        folder = tmp_path / str(at)
        hf_model(folder / "out")
        try:
            more = signal_at(signal.SIGTERM, at, partial(write, folder / "out", overwrite=True))
            assert not more or dropped.pop() is Came, "lost"
        except Came:
            pass
        assert names(folder) == ["out"], at
        seen.update(content(folder / "out").values())
        assert len(content(folder / "out")) == 4 and len(set(content(folder / "out").values())) == 1
        at += every
    assert seen == {"old", "new"} and at > 300


def test_an_added_iteration_at_any_step(tmp_path: Path, dropped: list[Any]) -> None:
    seen, at, more = set(), 1, True
    while more:
        save = save_directory(tmp_path / str(at), "iter_0000005", tracker="5")
        try:
            more = signal_at(signal.SIGTERM, at, partial(add, save))
            assert not more or dropped.pop() is Came, "lost"
        except Came:
            pass
        there = "iter_0000010" in names(save)
        seen.add(there)
        assert not [name for name in names(save) if name.endswith(".partial")], at
        assert (save / "latest_checkpointed_iteration.txt").read_text() == ("10" if there else "5")
        at += 37
    assert seen == {True, False}
