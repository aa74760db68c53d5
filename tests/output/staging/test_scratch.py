"""A directory for the time of a run: gone afterwards, and found after a kill."""

from __future__ import annotations

import signal
import stat
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from standing import files, inodes, names
from stepping import signal_at

from vlconv.converters.errors import NotACheckpoint, TargetError
from vlconv.converters.formats.directory.unfinished import MARKER, WORK, check_finished
from vlconv.converters.output.staging import scratch as module
from vlconv.converters.output.staging.claim import Claim
from vlconv.converters.output.staging.scratch import Scratch


class Came(BaseException):
    pass


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    def come(number: int, frame: FrameType | None) -> None:
        raise Came

    before = signal.signal(signal.SIGTERM, come)
    yield
    signal.signal(signal.SIGTERM, before)


def use(place: Path) -> None:
    scratch = Scratch(place, "name")
    try:
        with scratch as folder:
            files(folder, "deep/file")
    finally:
        scratch.remove()


def test_it_is_ours_and_goes(tmp_path: Path) -> None:
    with Scratch(tmp_path, "name") as folder:
        (only,) = tmp_path.iterdir()
        assert only.name.startswith("name-") and only.name.endswith(".partial")
        assert names(only) == [MARKER, "work"] and folder == only / "work"
        assert stat.S_IMODE(only.stat().st_mode) == 0o700  # as weights may be nobody else's to read
        files(folder, "deep/file")
    assert names(tmp_path) == []


def test_what_is_finished_in_it_is_a_source(tmp_path: Path) -> None:
    with Scratch(tmp_path, "name") as folder:
        files(folder, "hf/config.json", f"mcore.partial/{MARKER}", "mcore.partial/new/release/.metadata")
        check_finished(folder / "hf")
        for place in ("mcore.partial", "mcore.partial/new", "mcore.partial/new/release"):
            with pytest.raises(NotACheckpoint):
                check_finished(folder / place)
        with pytest.raises(NotACheckpoint):
            check_finished(folder.parent)


def test_what_a_killed_run_left_goes(tmp_path: Path) -> None:
    files(tmp_path, f"name-1.partial/{MARKER}", f"name-1.partial/{WORK}/hf/half", f"name-2.partial/{MARKER}")
    use(tmp_path)
    assert names(tmp_path) == []


def test_what_is_not_left_by_a_killed_run_stays(tmp_path: Path) -> None:
    files(tmp_path, "name-1.partial/mine", f"other-1.partial/{MARKER}", f"away/{MARKER}", "name-3.partial")
    (tmp_path / "name-4.partial").symlink_to("away")
    claim = Claim.new(tmp_path / "name-2.partial")
    before = inodes(tmp_path)
    use(tmp_path)
    assert inodes(tmp_path) == before
    claim.release()


def test_where_nothing_can_be_made(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="cannot be made"):
        use(tmp_path / "no")


def test_what_cannot_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "remove", lambda folder: None)
    with pytest.raises(Came) as caught, Scratch(tmp_path, "name"):
        signal.raise_signal(signal.SIGTERM)
    assert f"{tmp_path}/name-" in caught.value.__notes__[0]


def test_a_signal_at_any_step(tmp_path: Path) -> None:
    at, more = 0, True
    while more:
        at += 3
        try:
            more = signal_at(signal.SIGTERM, at, lambda: use(tmp_path))
            assert not more, "lost"
        except Came:
            pass
        assert names(tmp_path) == [], at
    assert at > 100
