"""SIGKILL, SIGINT and SIGTERM at any moment: the target is absent or complete, and a rerun completes it.

A few moments of each command here; thirty of each command and signal, and whole processes, in the slow part.
"""

from __future__ import annotations

import random
import shutil
import signal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from killing import Ended, fair, run, tree, warm
from refusing import snapshot
from stepping import Steps
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import Hf2McoreOptions, hf2mcore
from vlconv.converters.output.directory import OutputDirectory
from vlconv.converters.output.staging.journal import JOURNAL, Journal

SAMPLED = 2

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)

LINES = {
    "mcore2hf": ("mcore2hf", "torch_dist"),
    "mcore2hf torch": ("mcore2hf", "torch", "--max-shard-size", "100kB"),
    "hf2mcore": ("hf2mcore", "hf"),
    "hf2mcore torch": ("hf2mcore", "hf", "--format", "torch", "--tp", "2"),
    "mcore2mcore": ("mcore2mcore", "torch"),
    "mcore2mcore torch": ("mcore2mcore", "torch_dist", "--format", "torch", "--pp", "2"),
}
"""Command, source, options."""

SOME = [pytest.param(1, id="some"), pytest.param(30, id="many", marks=pytest.mark.slow)]


class Lines:
    """The command lines on one tiny model, and what each leaves when nothing disturbs it."""

    def __init__(self, work: Path) -> None:
        self._work = work
        warm()
        few = tiny_config(text={"num_hidden_layers": 2}, vision={"depth": 1, "deepstack_visual_indexes": [0]})
        write_tiny_hf(work / "hf", few)
        hf2mcore(work / "hf", work / "torch_dist")
        hf2mcore(work / "hf", work / "torch", Hf2McoreOptions(format="torch", tensor_model_parallel_size=2))
        self.undisturbed, self.late = cache(self._undisturbed), cache(self._late)

    def args(self, line: str, target: Path, *more: str) -> list[object]:
        command, source, *options = LINES[line]
        return [command, self._work / source, target, *options, *more]

    def place(self, line: str) -> Path:
        return self._work / line / "out"

    def _undisturbed(self, line: str) -> tuple[dict[str, str], int]:
        """The tree, and how many steps it takes."""
        target = self.place(line)
        target.parent.mkdir()
        ended = run(self.args(line, target))
        assert ended.code == 0 and [p.name for p in target.parent.iterdir()] == ["out"], ended
        return tree(target), ended.steps

    def _late(self, line: str) -> int:
        """How many of them are left when the target takes its place."""
        ended = run(self.args(line, self.place(line), "--overwrite"), prepare=at_the_end)
        assert ended.code == 0, ended
        return ended.steps


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Lines:
    return Lines(tmp_path_factory.mktemp("lines"))


def moments(name: str, steps: int, number: int) -> list[int]:
    """Random steps, spread over all there are."""
    chosen = random.Random(name)
    return [int(steps * (n + chosen.random()) / number) + 1 for n in range(number)]


def at_the_end(steps: Steps) -> None:
    """Count from the moment in which all is written and the target takes its place."""
    end = OutputDirectory.__exit__

    def counted(self: OutputDirectory, *fault: object) -> None:
        steps.begin()
        end(self, *fault)  # type: ignore[arg-type]

    OutputDirectory.__exit__ = counted  # type: ignore[method-assign,assignment]


def at_a_finished_file(steps: Steps) -> None:
    """Count from the moment in which a file was finished, and noted."""
    note = Journal.note

    def counted(self: Journal, *what: Any) -> None:
        note(self, *what)
        steps.begin()

    Journal.note = counted  # type: ignore[method-assign]


def whole(
    folder: Path, ended: Ended, number: signal.Signals, expected: dict[str, str], *, killed_before: bool = False
) -> bool:
    """Look at what a run left where nothing was, or what an earlier one was killed at; whether the target is there."""
    there = (folder / "out").exists()
    beside = {"out.partial"} if number == signal.SIGKILL or (killed_before and not there) else set()
    assert {p.name for p in folder.iterdir()} <= {"out", *beside}
    assert not there or tree(folder / "out") == expected
    if fair(ended, number):
        assert number == signal.SIGKILL or not there
        left = ("Nothing was left behind.", "out.partial was left behind")[: 1 + killed_before]
        assert number == signal.SIGKILL or any(words in ended.said for words in left) or not ended.said
    else:
        assert there and "every element once" in ended.said
    return there


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("times", SOME)
def test_a_new_target(tmp_path: Path, lines: Lines, line: str, number: signal.Signals, times: int) -> None:
    expected, steps = lines.undisturbed(line)
    for at in moments(f"{line} {number}", steps, times):
        folder = tmp_path / str(at)
        folder.mkdir()
        args = lines.args(line, folder / "out")
        there = whole(folder, run(args, number, at), number, expected)
        if number == signal.SIGKILL:
            again = run(args)
            assert again.code == there, again  # the next run leaves a target that is there alone
            assert [p.name for p in folder.iterdir()] == ["out"] and tree(folder / "out") == expected


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("line", ["mcore2hf", "hf2mcore torch"])
@pytest.mark.parametrize("times", SOME)
def test_an_exchanged_target(tmp_path: Path, lines: Lines, line: str, number: signal.Signals, times: int) -> None:
    """Moments from the first sync to the last word."""
    expected, _ = lines.undisturbed(line)
    seen = set()
    for at in moments(f"{line} {number} late", lines.late(line), 2 * times):
        folder = tmp_path / str(at)
        shutil.copytree(lines.place(line), folder / "out", symlinks=True)
        before = snapshot(folder / "out")
        ended = run(lines.args(line, folder / "out", "--overwrite"), number, at, prepare=at_the_end)
        assert tree(folder / "out") == expected
        old = snapshot(folder / "out") == before
        seen.add(old)
        if number == signal.SIGKILL:
            assert fair(ended, number) or not old
            assert {p.name for p in folder.iterdir()} <= {"out", "out.partial"}
            assert run(lines.args(line, folder / "out", "--overwrite")).code == 0
            assert tree(folder / "out") == expected and snapshot(folder / "out") != before
        else:
            assert fair(ended, number) == old, ended
        assert [p.name for p in folder.iterdir()] == ["out"]
    assert times < 3 or seen == {True, False}


@pytest.mark.parametrize("number", SIGNALS, ids=lambda n: n.name)
@pytest.mark.parametrize("line", ["mcore2hf torch", "hf2mcore torch"])
@pytest.mark.parametrize("times", SOME)
def test_a_run_that_goes_on_with_a_killed_one(
    tmp_path: Path, lines: Lines, line: str, number: signal.Signals, times: int
) -> None:
    """Killed once a file is finished, and then at any moment of going on with it."""
    expected, steps = lines.undisturbed(line)
    for at in moments(f"{line} {number} again", steps, times):
        folder = tmp_path / str(at)
        folder.mkdir()
        args = lines.args(line, folder / "out")
        run(args, signal.SIGKILL, 50, prepare=at_a_finished_file)
        finished = Journal.read(folder / "out.partial" / JOURNAL)
        assert finished is not None and finished.finished
        there = whole(folder, run(args, number, at), number, expected, killed_before=True)
        again = run(args)
        assert again.code == there, again
        assert [p.name for p in folder.iterdir()] == ["out"] and tree(folder / "out") == expected
