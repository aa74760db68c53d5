"""A disk that fails, is full or is cut off its power: at each call on a file, told by name, and nothing half done.

Some calls here, every one in the slow part.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from failing import Call, Calls
from killing import Ended, run, tree, warm
from stepping import Steps
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import hf2mcore
from vlconv.converters.formats.directory.unfinished import MARKER
from vlconv.converters.output.staging import atomic_swap

SAMPLED = 2

COMMANDS = {"mcore2hf": "mcore", "hf2mcore": "hf", "hf2mcore --format torch --tp 2": "hf"}
"""Command -> source."""

SOME = [pytest.param(1, id="some"), pytest.param(10**6, id="all", marks=pytest.mark.slow)]

DATA = {"read", "pread", "preadv", "write", "pwrite", "fsync", "create", "ftruncate"}
"""No run ends well without each of these."""


class Work:
    """A model on both sides, what each command makes of it, and which calls it takes."""

    def __init__(self, work: Path) -> None:
        self.work = work
        self._done: dict[str, tuple[list[Call], dict[str, str]]] = {}
        few = tiny_config(text={"num_hidden_layers": 1}, vision={"depth": 1, "deepstack_visual_indexes": [0]})
        write_tiny_hf(work / "hf", few)
        hf2mcore(work / "hf", work / "mcore")
        self._sources = {name: tree(work / name) for name in ("hf", "mcore")}
        warm()

    @property
    def target(self) -> Path:
        return self.work / "case" / "out"

    def run(self, command: str, prepare: Callable[[Steps], object], *more: str) -> Ended:
        """To an empty place; sources are never touched."""
        shutil.rmtree(self.target.parent, ignore_errors=True)
        self.target.parent.mkdir()
        return self.again(command, prepare, *more)

    def again(self, command: str, prepare: Callable[[Steps], object], *more: str) -> Ended:
        name, *options = command.split()
        ended = run([name, self.work / COMMANDS[command], self.target, *options, *more], prepare=prepare)
        assert {name: tree(self.work / name) for name in self._sources} == self._sources
        assert "Traceback" not in ended.said and "fault of vlconv" not in ended.said, ended.said
        return ended

    def undisturbed(self, command: str) -> tuple[list[Call], dict[str, str]]:
        """Its calls, and what it leaves."""
        if command not in self._done:
            calls = Calls(self.work, self.work / "trace")
            assert self.run(command, calls).code == 0
            self._done[command] = calls.list(), tree(self.target)
        return self._done[command]

    def failing(self, command: str, at: int, code: int) -> tuple[Ended, Call]:
        """A run of which one call fails: that of the name, and the number among those, of the undisturbed run's."""
        before = self.undisturbed(command)[0][:at]
        name, number = before[-1].name, [call.name for call in before].count(before[-1].name)
        calls = Calls(self.work, self.work / "trace", number, code, name)
        ended = self.run(command, calls)
        return ended, [call for call in calls.list() if call.name == name][number - 1]

    def left(self) -> list[str]:
        return sorted(path.name for path in self.target.parent.iterdir())

    def nothing_left(self, ended: Ended) -> None:
        assert ended.code == 1 and self.left() == [], ended

    def complete(self, command: str) -> None:
        assert tree(self.target) == self.undisturbed(command)[1]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Work:
    return Work(tmp_path_factory.mktemp("failing"))


def some(calls: list[Call], of_each: int, names: set[str] | None = None) -> list[int]:
    """Numbers of calls, counted from 1, at random: so many of each name."""
    chosen, found = random.Random(len(calls)), []
    for name in sorted({call.name for call in calls} if names is None else names):
        numbers = [n for n, call in enumerate(calls, 1) if call.name == name]
        found += chosen.sample(numbers, min(of_each, len(numbers)))
    return sorted(found)


@pytest.mark.parametrize("command", ["mcore2hf", "hf2mcore"])
@pytest.mark.parametrize("of_each", SOME)
def test_a_disk_that_fails(work: Work, command: str, of_each: int) -> None:
    """EIO, or ESTALE of a network share."""
    for at in some(work.undisturbed(command)[0], of_each):
        ended, call = work.failing(command, at, (errno.EIO, errno.ESTALE)[at % 2])
        if ended.code == 0:  # what failed was not needed, or could be done otherwise
            assert call.name not in DATA, (at, call)
            if call.name == "symlink":  # whose loss is told, here and in the manifest
                assert "could not be made a link" in ended.said
            else:
                work.complete(command)
            assert work.left() == ["out"] or "out.partial, where it was written, could not be removed" in ended.said
            continue
        first, hint = ended.said[ended.said.index("error: ") :].splitlines()[:2]
        about = [Path(call.path), Path(call.to or call.path)]
        about += [path.parent for path in about if path.name == MARKER]
        assert {path.name for path in about} & named(first), (at, call, first)
        assert ("Input/output error", "Stale file handle")[at % 2] in first and hint.strip(), (at, first)
        if "is in its place, complete" in ended.said:
            work.complete(command)
        else:
            work.nothing_left(ended)


def named(sentence: str) -> set[str]:
    """The last parts of all paths in it."""
    return {Path(word.rstrip(":,")).name for word in sentence.split()}


@pytest.mark.parametrize("command", ["hf2mcore --format torch --tp 2"])
@pytest.mark.parametrize("of_each", [1, pytest.param(40, marks=pytest.mark.slow)])
def test_a_disk_that_is_full(work: Work, command: str, of_each: int) -> None:
    """ENOSPC comes from whatever makes a file longer, and from fsync where the room is found that late."""
    for at in some(work.undisturbed(command)[0], of_each, {"create", "write", "pwrite", "ftruncate", "fsync"}):
        ended, call = work.failing(command, at, errno.ENOSPC)
        full = ("the disk is full", "Free some room"), ("cannot be made: No space left", "Name a target elsewhere")
        assert any(what in ended.said and hint in ended.said for what, hint in full), (at, call, ended)
        if call == Call("fsync", str(work.target.parent)):
            work.complete(command)
        else:
            work.nothing_left(ended)


@pytest.mark.parametrize("part", [0.4, 0.99, *(pytest.param(n / 9, marks=pytest.mark.slow) for n in range(9))])
def test_a_limit_on_the_size_of_files(work: Work, part: float) -> None:
    """SIGXFSZ, which comes with it, ends nothing."""
    work.undisturbed("mcore2hf")
    work.run("mcore2hf", lambda steps: None)
    largest = max(path.stat().st_size for path in work.target.iterdir())

    def limited(steps: Steps) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(largest * part), hard))

    ended = work.run("mcore2hf", limited)
    work.nothing_left(ended)
    assert "takes no file so large" in ended.said


@pytest.mark.parametrize("options", ["size=200k", "size=2m,nr_inodes=12"])
def test_a_small_disk_of_its_own(work: Work, options: str) -> None:
    """A tmpfs that only the run sees; where none may be mounted, a disk whose writes say that it is full."""
    work.undisturbed("mcore2hf")

    def small(steps: Steps) -> None:
        os.statvfs = lambda path: os.statvfs_result((4096, 4096, *[10**9] * 6, 0, 255))  # type: ignore[assignment]
        if mounted(work.target.parent, options):
            leave = os._exit

            def left(code: int) -> None:
                print("left:", [path.name for path in work.target.parent.iterdir()], flush=True)
                leave(code)

            os._exit = left  # type: ignore[assignment]
        else:
            Calls(work.work, work.work / "trace", 1, errno.ENOSPC, "pwrite")(steps)

    ended = work.run("mcore2hf", small)
    work.nothing_left(ended)
    assert "the disk is full" in ended.said and ("left: []" in ended.said or (work.work / "trace").exists())


def mounted(place: Path, options: str) -> bool:
    """Mount a tmpfs in a name space of this process' own; whether that may be done."""
    system = ctypes.CDLL(None, use_errno=True)
    new_mounts, private = 0x20000, 1 << 18 | 1 << 14  # CLONE_NEWNS, MS_PRIVATE | MS_REC
    return (
        system.unshare(new_mounts) == 0
        and system.mount(b"none", b"/", None, private, None) == 0
        and system.mount(b"none", os.fsencode(place), b"tmpfs", 0, options.encode()) == 0
    )


class TestPowerLoss:
    """What the calls were in order: everything is on disk before the name that leads to it, and that name is, too."""

    @pytest.mark.parametrize("command", COMMANDS)
    def test_a_new_target(self, work: Work, command: str) -> None:
        calls, _ = work.undisturbed(command)
        take = self.takes_its_place(calls, str(work.target))
        assert calls[take].name == "rename"
        self.is_synced(calls, take)

    @pytest.mark.parametrize("exchanges", [True, False])
    def test_a_replaced_one(self, work: Work, exchanges: bool) -> None:
        calls = Calls(work.work, work.work / "trace")

        def prepare(steps: Steps) -> None:
            calls(steps)
            if not exchanges:
                atomic_swap.exchange = lambda a, b: False

        assert work.run("mcore2hf", lambda steps: None).code == 0
        assert work.again("mcore2hf", prepare, "--overwrite").code == 0
        take = self.takes_its_place(calls.list(), str(work.target))
        self.is_synced(calls.list(), take)
        moved = [n for n, call in enumerate(calls.list()) if call.name == "rename" and call.path == str(work.target)]
        assert len(moved) == (not exchanges)
        for n in moved:  # where the old one went is on disk before its place is taken
            assert {str(work.target.parent), f"{work.target}.partial"} <= synced(calls.list()[n:take])
            self.is_synced(calls.list(), n)

    def takes_its_place(self, calls: list[Call], target: str) -> int:
        (only,) = [n for n, call in enumerate(calls) if call.name in ("rename", "exchange") and call.to == target]
        return only

    def is_synced(self, calls: list[Call], take: int) -> None:
        """At that call, with all that it names; and its parent afterwards."""
        new = f"{calls[take].to}.partial/new" if calls[take].to.endswith("out") else calls[take].path
        files = {call.path for call in calls[:take] if call.name == "create" and call.path.startswith(f"{new}/")}
        folders = {str(Path(path).parent) for path in files} | {new, str(Path(new).parent)}
        assert not files or len(files) > 8
        for path in files:
            last = max(n for n, call in enumerate(calls[:take]) if call.path == path and call.name in CHANGES)
            assert path in synced(calls[last:take]), path
        for folder in folders:
            entered = [n for n, call in enumerate(calls[:take]) if call.name in ENTERS and parent(call) == folder]
            assert not files or folder in synced(calls[max(entered) : take]), folder
        after = next(call for call in calls[take + 1 :] if call.name in ("fsync", "rename", "unlink"))
        assert after.name == "fsync"


CHANGES = {"create", "write", "pwrite", "ftruncate", "truncate", "sendfile"}
ENTERS = {"create", "mkdir", "symlink"}


def parent(call: Call) -> str:
    return str(Path(call.path).parent)


def synced(calls: list[Call]) -> set[str]:
    return {call.path for call in calls if call.name == "fsync"}
