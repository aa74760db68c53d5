"""A run that was killed is gone on with: what it finished is kept, and the output is that of an undisturbed run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from killing import killed
from refusing import flip
from standing import inodes
from tiny import write_tiny_hf, write_weights

from vlconv.converters import (
    CorruptError,
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    Report,
    Silent,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
)
from vlconv.converters.formats.dcp import write
from vlconv.converters.options import OutputOptions
from vlconv.converters.output.staging import journal

SAMPLED = 2

Command = Callable[..., Report]
TORCH = {"format": "torch", "tensor_model_parallel_size": 2, "pipeline_model_parallel_size": 2}
FORMS: dict[str, tuple[Command, str, OutputOptions]] = {
    "mcore2hf": (mcore2hf, "mcore", Mcore2HfOptions(max_shard_size=60_000)),
    "mcore2hf, legacy": (mcore2hf, "legacy", Mcore2HfOptions(max_shard_size=60_000)),
    "hf2mcore": (hf2mcore, "hf", Hf2McoreOptions()),
    "hf2mcore, legacy": (hf2mcore, "hf", Hf2McoreOptions(**TORCH)),
    "mcore2mcore": (mcore2mcore, "mcore", Mcore2McoreOptions(as_layout="pai")),
    "mcore2mcore, legacy": (mcore2mcore, "mcore", Mcore2McoreOptions(**TORCH)),
}


@pytest.fixture(scope="module", autouse=True)
def many_files() -> Any:
    """Distributed checkpoints of several files, as large ones have."""
    patch = pytest.MonkeyPatch()
    patch.setattr(write, "FILE", 60_000)
    patch.setattr(write, "CHUNK", 1_000)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, many_files: None) -> Path:
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore")
    hf2mcore(work / "hf", work / "legacy", Hf2McoreOptions(**TORCH))
    return work


def tree(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def finished(staging: Path) -> list[str]:
    """The files that a killed run had finished."""
    return list(journal.Journal.read(staging / "journal").finished)  # type: ignore[union-attr]


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> tuple[Command, str, OutputOptions]:
    return FORMS[request.param]


def test_the_same_bytes_and_finished_files_are_kept(
    models: Path, tmp_path: Path, form: tuple[Command, str, OutputOptions]
) -> None:
    command, source, options = form
    command(models / source, tmp_path / "undisturbed", options)
    killed(lambda: command(models / source, tmp_path / "out", options), after=3)
    assert not (tmp_path / "out").exists()
    kept = finished(tmp_path / "out.partial")
    before = inodes(tmp_path / "out.partial/new")
    report = command(models / source, tmp_path / "out", options)
    assert report.data["resumes"]["files"] == len(kept) == 3
    after = inodes(tmp_path / "out")
    assert all(after[name] == before[name] for name in kept)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
    assert not (tmp_path / "out.partial").exists()


def test_killed_at_every_file(models: Path, tmp_path: Path) -> None:
    command, source, options = FORMS["mcore2hf"]
    command(models / source, tmp_path / "undisturbed", options)
    count = len([p for p in (tmp_path / "undisturbed").iterdir() if "model" in p.name and "config" not in p.name])
    for _ in range(count):  # each run finishes one more file, the index and config.json at last
        killed(lambda: command(models / source, tmp_path / "out", options), after=1)
    report = command(models / source, tmp_path / "out", options)
    assert report.data["resumes"]["files"] == count
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_a_kept_file_that_was_changed_is_written_again(models: Path, tmp_path: Path) -> None:
    """As after a power cut: noted, but its bytes never reached the disk."""
    command, source, options = FORMS["mcore2hf"]
    command(models / source, tmp_path / "undisturbed", options)
    killed(lambda: command(models / source, tmp_path / "out", options), after=4)
    # What the journal names: a file that another thread was at lies there, too.
    one, two, three, four = (tmp_path / "out.partial/new" / name for name in finished(tmp_path / "out.partial"))
    flip(one, 8 * (one.stat().st_size - 1))
    os.truncate(two, two.stat().st_size - 1)
    three.unlink()
    before = four.stat().st_ino
    command(models / source, tmp_path / "out", options)
    assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")
    assert (tmp_path / "out" / four.name).stat().st_ino == before


@pytest.mark.parametrize("change", ["options", "source", "time", "not asked"])
def test_another_run_starts_anew(tmp_path: Path, change: str) -> None:
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    killed(lambda: mcore2hf(tmp_path / "mcore", tmp_path / "out", Mcore2HfOptions(max_shard_size=60_000)), after=3)
    options = {"max_shard_size": 60_000}
    if change == "options":
        options["dtype"] = "float32"  # type: ignore[assignment]
    elif change == "source":
        write_tiny_hf(tmp_path / "hf", seed=1)
        hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(overwrite=True))
    elif change == "time":
        os.utime(next((tmp_path / "mcore/release").glob("*.distcp")), ns=(0, 0))
    else:
        options["resume"] = False
    report = mcore2hf(tmp_path / "mcore", tmp_path / "out", Mcore2HfOptions(**options))  # type: ignore[arg-type]
    assert "starts_anew" in report.told and "resumes" not in report.told
    del options["resume" if change == "not asked" else "max_shard_size"]
    mcore2hf(tmp_path / "mcore", tmp_path / "undisturbed", Mcore2HfOptions(**options))  # type: ignore[arg-type]
    if change == "not asked":
        assert tree(tmp_path / "out") == tree(tmp_path / "undisturbed")


def test_the_checksums_of_what_the_killed_run_read_are_checked(tmp_path: Path) -> None:
    """It died before it came to compare them: a bit that was wrong in the source is found all the same."""
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    options = Mcore2HfOptions(max_shard_size=60_000)
    mcore2hf(tmp_path / "mcore", tmp_path / "undisturbed", options)
    first = next((tmp_path / "undisturbed").glob("model-00001-*"))
    data = first.read_bytes()[-64:]
    damaged = next(p for p in (tmp_path / "mcore/release").glob("*.distcp") if data in p.read_bytes())
    flip(damaged, 8 * damaged.read_bytes().index(data))
    killed(lambda: mcore2hf(tmp_path / "mcore", tmp_path / "out", options), after=2)
    with pytest.raises(CorruptError, match="CRC-32"):
        mcore2hf(tmp_path / "mcore", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()


def test_numbers_that_are_none_are_counted_in_kept_files_too(tmp_path: Path) -> None:
    tensors = write_tiny_hf(tmp_path / "hf")
    for tensor in tensors.values():
        tensor.view(-1)[0] = float("nan")
    write_weights(tmp_path / "hf", tensors)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    options = Mcore2HfOptions(max_shard_size=60_000)
    killed(lambda: mcore2hf(tmp_path / "mcore", tmp_path / "out", options), after=3)
    report = mcore2hf(tmp_path / "mcore", tmp_path / "out", options)
    assert report.data["resumes"]["files"] == 3
    assert report.data["special_numbers"] == {name: {"nan": 1, "infinite": 0} for name in tensors}


def test_the_plan_says_so(models: Path, tmp_path: Path) -> None:
    command, source, options = FORMS["mcore2hf"]
    killed(lambda: command(models / source, tmp_path / "out", options), after=2)
    seen: list[str] = []

    class Watch(Silent):
        def planned(self, report: Report) -> None:
            seen.append(report.told["resumes"])

    planned = mcore2hf(models / source, tmp_path / "out", Mcore2HfOptions(max_shard_size=60_000, dry_run=True))
    command(models / source, tmp_path / "out", options, Watch())
    assert seen == [planned.told["resumes"]]
    assert seen[0].startswith("a run that was ended: 2 files, ")


def test_an_abandoned_one_is_told_by_other_commands(models: Path, tmp_path: Path) -> None:
    command, source, options = FORMS["mcore2hf"]
    killed(lambda: command(models / source, tmp_path / "out", options), after=2)
    other = command(models / source, tmp_path / "other", options)
    (warning,) = (w for w in other.warnings if "a run that was ended" in w)
    assert warning.startswith(f"{tmp_path}/out.partial is what a run that was ended has left, ")
    assert (tmp_path / "out.partial").exists()
    assert not [w for w in command(models / source, tmp_path / "out", options).warnings if "was ended" in w]
