"""A repair that does not come to its end, or may not begin: nothing is half written, and no source is touched."""

from __future__ import annotations

import errno
import os
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from failing import Calls
from killing import fair, run, tree, warm
from refusing import snapshot
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import ChangedError, VlconvError, repair, verify
from vlconv.converters.report import Phase, Silent

UNDO = "vision-qkv-tp2-as-flat"
FEW = {"text": {"num_hidden_layers": 1}, "vision": {"depth": 1, "deepstack_visual_indexes": [0]}}
QKV = "model.visual.blocks.0.attn.qkv.weight"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good, and broken as the fault of that name makes it."""
    import torch

    folder = tmp_path_factory.mktemp("repair")
    hf = write_tiny_hf(folder / "good", tiny_config(**FEW), shards=2)
    ranks = zip(*(part.chunk(2) for part in hf[QKV].chunk(3)), strict=True)
    write_tiny_hf(
        folder / "broken", tiny_config(**FEW), tensors=hf | {QKV: torch.cat([torch.cat(r) for r in ranks])}, shards=2
    )
    warm()
    return folder


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "out"


def asked(work: Path, out: Path, *by: object) -> list[object]:
    return ["repair", work / "broken", out, *(by or ("--like", work / "good"))]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
@pytest.mark.parametrize("times", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_killed_at_any_moment_it_is_absent_or_complete(
    work: Path, place: Path, number: signal.Signals, times: int
) -> None:
    sources = tree(work)
    undisturbed = run(asked(work, place))
    assert undisturbed.code == 0
    good, chosen = tree(place), random.Random(times)
    for _ in range(times):
        shutil.rmtree(place, ignore_errors=True)
        ended = run(asked(work, place), number, chosen.randint(undisturbed.steps // 3, undisturbed.steps))
        fair(ended, number)
        assert not place.exists() or tree(place) == good
        assert number == signal.SIGKILL or {path.name for path in place.parent.iterdir()} <= {"out"}
        assert place.exists() or run(asked(work, place)).code == 0
        assert tree(place) == good and tree(work) == sources


@pytest.mark.parametrize("of_each", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_on_a_full_disk_nothing_is_left(work: Path, place: Path, of_each: int) -> None:
    calls = Calls(place.parent, work.parent / "trace")
    assert run(asked(work, place, "--undo", UNDO), prepare=calls).code == 0
    made, chosen = calls.list(), random.Random(1)
    for name in ("write", "pwrite", "fsync"):
        count = sum(call.name == name for call in made)
        for number in chosen.sample(range(1, count + 1), min(of_each, count)):
            shutil.rmtree(place, ignore_errors=True)
            failing = Calls(place.parent, work.parent / "trace", number, errno.ENOSPC, name)
            ended = run(asked(work, place, "--undo", UNDO), prepare=failing)
            assert ended.code == 1 and "error: " in ended.said and "Traceback" not in ended.said, (name, number, ended)
            assert not [*place.parent.iterdir()], (name, number, ended)


class Meddler(Silent):
    """Does something once the first bytes were told."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act, self.done = act, False

    def progress(self, done: int, total: int) -> None:
        if not self.done:
            self.done = True
            self._act()


@pytest.mark.parametrize(
    "name", ["broken/config.json", "broken/model-00001-of-00002.safetensors", "good/model-00002-of-00002.safetensors"]
)
def test_a_source_that_changes_meanwhile_is_refused(work: Path, place: Path, tmp_path: Path, name: str) -> None:
    here = tmp_path / "sources"
    shutil.copytree(work, here)
    meddler = Meddler(lambda: os.utime(here / name, ns=(1, 1)))
    with pytest.raises(ChangedError, match=Path(name).name):
        repair(here / "broken", place, like=here / "good", observer=meddler)
    assert meddler.done and not place.exists() and [path.name for path in tmp_path.iterdir()] == ["sources"]


class Writing(Meddler):
    """Does it only once it is written."""

    writing = False

    def phase(self, phase: Phase) -> None:
        self.writing = phase == Phase.WRITING

    def progress(self, done: int, total: int) -> None:
        if self.writing:
            super().progress(done, total)


def test_so_is_a_like_that_changes_while_it_is_written(work: Path, place: Path, tmp_path: Path) -> None:
    """What an ended run has left is then not gone on with, either: another like may show another fault."""
    here = tmp_path / "sources"
    shutil.copytree(work, here)
    meddler = Writing(lambda: os.utime(here / "good" / "config.json", ns=(1, 1)))
    with pytest.raises(ChangedError, match=r"config\.json"):
        repair(here / "broken", place, like=here / "good", observer=meddler)
    assert meddler.done and not place.exists()


@pytest.mark.parametrize(
    ("source", "out", "like", "says"),
    [
        ("broken", "broken/out", "good", "broken/out lies inside the source"),
        ("broken", "good/out", "good", "good/out lies inside the reference"),
        ("broken", "broken", "good", "broken is the source itself"),
        ("broken", "good", "good", "good is the reference itself"),
        ("broken", "out", "broken", "--like is the source itself"),
        ("broken", "out", "link", "--like is the source itself"),
        ("broken", "file", "good", "file is a file, not a directory"),
        ("file", "out", "good", "file is no directory"),
        ("nowhere", "out", "good", "nowhere does not exist"),
        ("broken", "out", "file", "file: not a directory"),
        ("broken", "out", "nowhere", "nowhere does not exist"),
    ],
)  # fmt: skip
def test_places_that_cannot_be_meant(work: Path, tmp_path: Path, source: str, out: str, like: str, says: str) -> None:
    here = tmp_path / "here"
    shutil.copytree(work, here)
    (here / "link").symlink_to(here / "broken")
    (here / "file").write_text("{}")
    before = snapshot(here)
    with pytest.raises(VlconvError) as fault:
        repair(here / source, here / out, like=here / like)
    assert says in fault.value.what and fault.value.hint and snapshot(here) == before


def test_sources_by_links_are_as_good(work: Path, tmp_path: Path) -> None:
    """The directories, and the weights in one, as in the Hub's cache; what is written has none."""
    (tmp_path / "like").symlink_to(work / "good")
    linked = tmp_path / "linked"
    linked.mkdir()
    for path in (work / "broken").iterdir():
        if path.suffix == ".safetensors":
            (linked / path.name).symlink_to(path)
        else:
            shutil.copy(path, linked)
    repair(linked, tmp_path / "out", like=tmp_path / "like")
    assert verify(work / "good", tmp_path / "out").status == "same"
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
