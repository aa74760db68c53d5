"""A source that changes under a run, at any moment: refused, naming the file, with nothing written.

And a source whose files cannot be read: known before a byte is written, in a dry run too.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mcore.legacy import save_legacy
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_reference
from refusing import refused, snapshot
from tiny import write_tiny_hf

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    Report,
    VerifyOptions,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
    verify,
)
from vlconv.converters.errors import ChangedError, CorruptError, NotComparable, ReadError

DATA, TRACKER = "release/__0_0.distcp", "latest_checkpointed_iteration.txt"
SHARD, INDEX = "model-00002-of-00003.safetensors", "model.safetensors.index.json"
RANK = "release/mp_rank_01/model_optim_rng.pt"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as hf/, mcore/ and legacy/."""
    work = tmp_path_factory.mktemp("made")
    write_tiny_hf(work / "hf", shards=3)
    hf2mcore(work / "hf", work / "mcore")
    config = tiny()
    save_legacy(work / "legacy", config, random_hf_tensors(config), Topology(tp=2))
    write_reference(work / "legacy" / "huggingface", config)
    return work


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


class Meddler:
    """Does something to the source once the plan is shown, or when the first bytes are done."""

    def __init__(self, change: Callable[[], object], *, late: bool = False) -> None:
        self.change, self.late, self.done = change, late, False

    def planned(self, report: Report) -> None:
        if not self.late:
            self.meddle()

    def progress(self, done: int, total: int) -> None:
        if self.late and done:
            self.meddle()

    def meddle(self) -> None:
        if not self.done:
            self.done = True
            self.change()


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b" ")


def touched(path: Path) -> None:
    found = path.stat()
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns + 10**9))


def exchanged(path: Path) -> None:
    """Another file of the same content, size and times."""
    shutil.copy2(path, other := path.with_name(path.name + ".new"))
    other.rename(path)


CHANGES = {
    "appended": (appended, "bytes, and had"),
    "touched": (touched, "was written to"),
    "exchanged": (exchanged, "was replaced by another file"),
    "removed": (Path.unlink, "was removed"),
}

HF_FILES = ("config.json", INDEX, SHARD, "tokenizer.json", "merges.txt")
MCORE_FILES = (
    *(f"release/{name}" for name in (".metadata", "common.pt", "__0_0.distcp")),
    *(f"huggingface/{name}" for name in ("config.json", "tokenizer.json", "preprocessor_config.json")),
)
LEGACY_FILES = ("release/mp_rank_00/model_optim_rng.pt", RANK, "huggingface/config.json")

SOURCES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "hf": (hf2mcore, HF_FILES),
    "mcore": (mcore2hf, MCORE_FILES),
    "legacy": (mcore2hf, LEGACY_FILES),
}
EVERY = [(source, name) for source, (_, names) in SOURCES.items() for name in names]


@pytest.mark.parametrize(("change", "says"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize(("source", "name"), EVERY)
def test_refused(work: Path, source: str, name: str, change: Callable[[Path], None], says: str) -> None:
    """Whichever file, whatever becomes of it."""
    command, path = SOURCES[source][0], work / source / name
    before = set(snapshot(work)) - {str(path.relative_to(work))}
    with pytest.raises(ChangedError) as caught:
        command(work / source, work / "out", observer=Meddler(lambda: change(path)))
    assert caught.value.what == f"{path} changed while it was read: it {caught.value.what.rpartition(': it ')[2]}"
    assert says in caught.value.what
    assert "trainer" in caught.value.hint
    assert set(snapshot(work)) - {str(path.relative_to(work))} == before


@pytest.mark.parametrize(("source", "name"), [("hf", SHARD), ("mcore", DATA), ("legacy", RANK)])
def test_late(work: Path, source: str, name: str) -> None:
    """When bytes are read already, and once more when all were."""
    command, path = SOURCES[source][0], work / source / name
    meddler = Meddler(lambda: touched(path), late=True)
    with pytest.raises(ChangedError, match=f"{path.name} changed while it was read"):
        command(work / source, work / "out", observer=meddler)
    assert meddler.done
    assert not (work / "out").exists()


def test_damage_in_the_middle_is_told_as_a_change(work: Path) -> None:
    """A trainer that writes over its own checkpoint: the checksum is wrong, and that is not the disk's fault."""

    def zeroed() -> None:
        with (work / "mcore" / DATA).open("r+b") as file:
            file.seek(100_000)
            file.write(bytes(200_000))

    with pytest.raises(ChangedError, match=r"__0_0.distcp changed while it was read"):
        mcore2hf(work / "mcore", work / "out", observer=Meddler(zeroed))


def test_mcore2mcore(work: Path) -> None:
    for name in MCORE_FILES:
        with pytest.raises(ChangedError, match=Path(name).name):
            mcore2mcore(
                work / "mcore",
                work / "out",
                Mcore2McoreOptions(),
                Meddler(lambda name=name: touched(work / "mcore" / name)),  # type: ignore[misc]
            )
    assert not (work / "out").exists()


@pytest.mark.parametrize("name", [f"mcore/{DATA}", f"hf/{SHARD}", "hf/config.json", "mcore/release/.metadata"])
def test_verify(work: Path, name: str) -> None:
    """Of a pair, either side; and nothing is said about equality then."""
    with pytest.raises(NotComparable, match=f"{Path(name).name} changed while it was read"):
        verify(work / "hf", work / "mcore", observer=Meddler(lambda: touched(work / name)))
    with pytest.raises(NotComparable, match=f"{Path(name).name} changed while it was read"):
        verify(work / name.split("/")[0], observer=Meddler(lambda: touched(work / name)))


def test_on_disk_too(work: Path) -> None:
    assert verify(work / "mcore", options=VerifyOptions(on_disk=work)).status == "same"


def test_what_is_not_read_may_change(work: Path) -> None:
    """A trainer goes on saving other iterations beside the one that was the latest when the run began."""
    (work / "mcore" / "release").rename(work / "mcore" / "iter_0000100")
    (work / "mcore" / TRACKER).write_text("100")

    def goes_on() -> None:
        shutil.copytree(work / "mcore" / "iter_0000100", work / "mcore" / "iter_0000200")
        (work / "mcore" / TRACKER).write_text("200")

    mcore2hf(work / "mcore", work / "out", observer=Meddler(goes_on))
    assert differing(read_hf(work / "out"), read_hf(work / "hf")) == []


def unreadable(monkeypatch: pytest.MonkeyPatch, closed: Path, code: int = errno.EACCES) -> None:
    """No process may open that file, though its size is told: tests may run as root, for whom modes are nothing."""
    real = os.open

    def refuse(path: Any, *args: Any, **how: Any) -> int:
        if os.fspath(path) == str(closed):
            raise OSError(code, os.strerror(code), str(closed))
        return real(path, *args, **how)

    monkeypatch.setattr(os, "open", refuse)


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize(("source", "name"), EVERY)
def test_unreadable(work: Path, monkeypatch: pytest.MonkeyPatch, source: str, name: str, dry_run: bool) -> None:
    """Known before anything is written: no plan is shown."""
    command, options = (hf2mcore, Hf2McoreOptions) if source == "hf" else (mcore2hf, Mcore2HfOptions)
    unreadable(monkeypatch, path := work / source / name)
    error = refused(
        command, work / source, work / "out", options(dry_run=dry_run), Unplanned(), fault=ReadError, says=str(path)
    )
    assert error.what == f"{path} cannot be read: Permission denied"
    assert "permissions" in error.hint


class Unplanned:
    """An Observer that never hears of a plan."""

    def planned(self, report: Report) -> None:
        pytest.fail("a plan was shown")

    def progress(self, done: int, total: int) -> None:
        pytest.fail("bytes were read")


@pytest.mark.parametrize(("source", "name"), [("hf", SHARD), ("mcore", DATA), ("legacy", RANK)])
def test_short(work: Path, source: str, name: str) -> None:
    command, options = (hf2mcore, Hf2McoreOptions) if source == "hf" else (mcore2hf, Mcore2HfOptions)
    path = work / source / name
    os.truncate(path, path.stat().st_size // 2)
    for dry_run in (True, False):
        refused(
            command,
            work / source,
            work / "out",
            options(dry_run=dry_run),
            Unplanned(),
            fault=CorruptError,
            says=path.name,
        )
