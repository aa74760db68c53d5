"""What an observer is told a command is at, and of which bytes; and a signal while files are brought to disk."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from itertools import groupby
from pathlib import Path

import pytest
from killing import CODES, run, warm
from refusing import snapshot
from stepping import Steps
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, Phase, VerifyOptions, hf2mcore, mcore2hf, verify
from vlconv.converters.report import Silent

WRITTEN = [Phase.WRITING, Phase.BRINGING_TO_DISK]


class Watch(Silent):
    """Remembers phases, and the bytes that were told of each."""

    def __init__(self) -> None:
        self.told: list[tuple[Phase, list[tuple[int, int]]]] = []

    def phase(self, phase: Phase) -> None:
        self.told.append((phase, []))

    def progress(self, done: int, total: int) -> None:
        self.told[-1][1].append((done, total))

    @property
    def phases(self) -> list[Phase]:
        return [phase for phase, _ in groupby(phase for phase, _ in self.told)]

    def whole(self, *but: Phase) -> bool:
        """Whether all bytes were told of each, but of some."""
        return all(told[-1][0] == told[-1][1] > 0 for phase, told in self.told if phase not in but)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """hf, and mcore made of it."""
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "hf", tiny_config(text={"num_hidden_layers": 1}, vision={"depth": 1, **DEEPSTACK}))
    hf2mcore(work / "hf", work / "mcore")
    return work


DEEPSTACK = {"deepstack_visual_indexes": [0]}


class TestTold:
    def test_of_a_conversion(self, models: Path, tmp_path: Path) -> None:
        watch = Watch()
        mcore2hf(models / "mcore", tmp_path / "hf", observer=watch)
        assert watch.phases == WRITTEN and watch.whole()
        nbytes = sum(path.stat().st_size for path in (tmp_path / "hf").iterdir())
        assert {total for _, total in watch.told[-1][1]} == {nbytes}

    def test_of_one_that_is_hashed_and_read_back(self, models: Path, tmp_path: Path) -> None:
        """What is read back was brought to disk before."""
        watch = Watch()
        hf2mcore(models / "hf", tmp_path / "mcore", Hf2McoreOptions(sha256=True, read_back=True), watch)
        last = [Phase.BRINGING_TO_DISK, Phase.READING_BACK, Phase.BRINGING_TO_DISK]
        assert watch.phases == [Phase.WRITING, Phase.HASHING, *last] and watch.whole(Phase.HASHING)

    def test_of_a_source_that_states_sums(self, models: Path, tmp_path: Path) -> None:
        checkpoint = tmp_path / "mcore"
        hf2mcore(models / "hf", checkpoint)
        release = checkpoint / "release"
        files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in release.iterdir()}
        (release / "integrity.json").write_text(json.dumps({"algorithm": "sha256", "files": files}))
        watch = Watch()
        mcore2hf(checkpoint, tmp_path / "hf", observer=watch)
        assert watch.phases == [Phase.CHECKING_SOURCE, *WRITTEN] and watch.whole()
        watch = Watch()
        verify(checkpoint, tmp_path / "hf", observer=watch)
        assert watch.phases == [Phase.CHECKING_SOURCE, Phase.COMPARING] and watch.whole()

    def test_of_a_comparison(self, models: Path) -> None:
        watch = Watch()
        verify(models / "hf", models / "mcore", observer=watch)
        assert watch.phases == [Phase.COMPARING] and watch.whole()

    def test_of_a_comparison_that_finds_something(self, models: Path, tmp_path: Path) -> None:
        write_tiny_hf(tmp_path, json.loads((models / "hf" / "config.json").read_text()), seed=1)
        watch = Watch()
        assert verify(models / "hf", tmp_path, observer=watch).status == "different"
        assert watch.phases == [Phase.COMPARING, Phase.EXPLAINING] and watch.whole()

    def test_of_one_with_its_own_sums(self, models: Path) -> None:
        watch = Watch()
        verify(models / "mcore", observer=watch)
        assert watch.phases == [Phase.CHECKING_FILES, Phase.COMPARING] and watch.whole()

    def test_of_a_round_trip_on_disk(self, models: Path, tmp_path: Path) -> None:
        watch = Watch()
        verify(models / "hf", options=VerifyOptions(on_disk=tmp_path), observer=watch)
        assert watch.phases == [*WRITTEN, *WRITTEN, Phase.COMPARING] and watch.whole()

    def test_of_a_dry_run(self, models: Path, tmp_path: Path) -> None:
        watch = Watch()
        mcore2hf(models / "mcore", tmp_path / "hf", Mcore2HfOptions(dry_run=True), watch)
        assert watch.told == []


@pytest.fixture(scope="module")
def loaded() -> None:
    warm()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda n: n.name)
@pytest.mark.usefixtures("loaded")
def test_a_signal_while_files_are_brought_to_disk(models: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Every fsync of a file takes long, and there are more of them than are done at once."""
    (tmp_path / "out").mkdir()
    before = snapshot(tmp_path)

    def prepare(steps: Steps) -> None:
        sent = threading.Event()

        def slow(fd: int) -> None:
            if threading.current_thread() is not threading.main_thread():
                if not sent.is_set():
                    sent.set()
                    os.kill(os.getpid(), number)
                time.sleep(0.05)
                print("synced")

        os.fsync = slow

    ended = run(["mcore2hf", models / "mcore", tmp_path / "out", "--max-shard-size", "20kB"], prepare=prepare)
    assert ended.code == CODES[number] and "Nothing was left behind." in ended.said and "Traceback" not in ended.said
    assert 0 < ended.said.count("synced") <= 8
    assert snapshot(tmp_path) == before
