"""Processes that are forked for a task: each does its share, and none outlives it."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from processes import wait_for

from vlconv.converters import CorruptError, RankError
from vlconv.converters.ranks import forks
from vlconv.converters.ranks.forks import Forks, allowed, team_for
from vlconv.converters.ranks.team import Member, Task

GIB = 1 << 30


def nothing(done: int) -> None:
    """Nobody watches."""


def told_by(task: Task, size: int = 3, progress: Callable[[int], None] = nothing) -> list[Any]:
    found: list[Any] = []
    Forks(size).run(task, found.append, progress)
    return found


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


def children() -> set[str]:
    """Processes whose parent is this one, those included that have ended and that nobody has waited for."""
    return {child for task in Path("/proc/self/task").iterdir() for child in (task / "children").read_text().split()}


def slow(member: Member) -> None:
    """As a comparison does, it tells how far it is; it takes a minute."""
    for second in range(600):
        member.progress(second)
        time.sleep(0.1)


class TestShares:
    def test_each_does_its_own(self) -> None:
        spans = sorted(told_by(lambda member: member.tell((member.share.span(10), os.getpid()))), key=str)
        assert [span for span, _ in spans] == [range(3), range(3, 6), range(6, 10)]
        assert len({process for _, process in spans}) == 3 and os.getpid() in dict(spans).values()

    def test_bytes_of_all_are_told(self) -> None:
        seen: list[int] = []
        told_by(lambda member: member.progress(10 ** (member.share.rank + 1)), progress=seen.append)
        assert seen[-1] == 1110 and seen == sorted(seen)

    def test_as_much_as_there_is_to_tell(self) -> None:
        """More than a pipe holds."""
        assert sorted(map(len, told_by(lambda member: member.tell(b"x" * (member.share.rank << 20))))) == [
            0,
            1 << 20,
            2 << 20,
        ]


class TestWhatEndsIt:
    @pytest.mark.parametrize("rank", [0, 1, 2])
    def test_an_error_of_one(self, rank: int) -> None:
        def task(member: Member) -> None:
            if member.share.rank == rank:
                raise CorruptError("is damaged", "Copy it again.")
            slow(member)

        begin = time.monotonic()
        with pytest.raises(CorruptError, match="is damaged"):
            told_by(task)
        assert time.monotonic() - begin < 5

    def test_an_end_without_a_word(self) -> None:
        def task(member: Member) -> None:
            if member.share.rank == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            slow(member)

        with pytest.raises(RankError, match=r"ended without a word") as caught:
            told_by(task)
        assert caught.value.hint == "Try again with fewer --threads."

    def test_who_watches(self) -> None:
        def watch(done: int) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            told_by(slow, progress=watch)

    def test_a_signal_is_the_parent_s(self) -> None:
        """Ctrl-C reaches all processes of a terminal: only one of them answers."""

        def task(member: Member) -> None:
            if member.share.rank:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
            member.tell(member.share.rank)

        assert sorted(told_by(task)) == [0, 1, 2]

    def test_the_parent_s_death(self, tmp_path: Path) -> None:
        def task(member: Member) -> None:
            (tmp_path / str(os.getpid())).touch()
            slow(member)

        parent = os.fork()
        if not parent:
            try:
                told_by(task)
            finally:
                os._exit(0)
        wait_for(lambda: len([*tmp_path.iterdir()]) == 3)
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        wait_for(lambda: not any(map(lives, tmp_path.iterdir())))


def lives(process: Path) -> bool:
    """Whether it runs; one that nobody has waited for does not."""
    try:
        return Path("/proc", process.name, "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class TestWhetherThereAreAny:
    @pytest.fixture(autouse=True)
    def machine(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(forks, "processors", lambda: 8)
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.delitem(sys.modules, "torch")

    def test_only_who_owns_the_process_allows_it(self) -> None:
        assert team_for(GIB, 4) is None
        with allowed():
            found = team_for(GIB, 4)
            assert found and found.size == 4
        assert team_for(GIB, 4) is None

    @pytest.mark.parametrize(("nbytes", "threads", "size"), [(GIB, 16, 8), (3 * forks.WORTH, 8, 3)])
    def test_as_many_as_are_of_use(self, nbytes: int, threads: int, size: int) -> None:
        with allowed():
            found = team_for(nbytes, threads)
        assert found and found.size == size

    @pytest.mark.parametrize(("nbytes", "threads"), [(GIB, 1), (2 * forks.WORTH - 1, 8)])
    def test_none_for_little(self, nbytes: int, threads: int) -> None:
        with allowed():
            assert team_for(nbytes, threads) is None

    def test_none_where_torch_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its threads would be missing."""
        monkeypatch.setitem(sys.modules, "torch", sys)
        with allowed():
            assert team_for(GIB, 4) is None

    def test_none_on_other_systems(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "darwin")
        with allowed():
            assert team_for(GIB, 4) is None
