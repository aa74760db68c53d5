"""verify --on-disk that a signal ends: nothing stays of what it wrote, and after SIGKILL the next one removes it."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest
from killing import fair, run, warm
from refusing import snapshot
from tiny import tiny_config, write_tiny_hf


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("verify")
    write_tiny_hf(work / "hf", tiny_config(text={"num_hidden_layers": 1}, vision={"depth": 1, **DEEPSTACK}))
    warm()
    return work


@pytest.fixture(scope="module")
def steps(work: Path) -> int:
    """How many there are when nothing disturbs it."""
    before = snapshot(work)
    undisturbed = run(["verify", work / "hf", "--on-disk", work])
    assert undisturbed.code == 0 and "same: " in undisturbed.said and snapshot(work) == before
    return undisturbed.steps


DEEPSTACK = {"deepstack_visual_indexes": [0]}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("times", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_at_any_moment(work: Path, steps: int, number: signal.Signals, times: int) -> None:
    args, chosen, before, left = ["verify", work / "hf", "--on-disk", work], random.Random(times), snapshot(work), 0
    for _ in range(times):
        ended = run(args, number, chosen.randint(steps // 3, steps))
        fair(ended, number)
        beside = {path.name for path in work.iterdir()} - {"hf"}
        left += len(beside)
        assert all(name.startswith("vlconv-verify-") and name.endswith(".partial") for name in beside)
        assert not beside or (number == signal.SIGKILL and len(beside) == 1)
        assert number != signal.SIGKILL or run(args).code == 0
        assert snapshot(work) == before
    assert left or number != signal.SIGKILL
