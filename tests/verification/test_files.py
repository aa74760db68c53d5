"""verify of an output whose source is gone: its files against vlconv.json."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from refusing import flip
from tiny import write_tiny_hf

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, NotComparable, VerifyOptions, hf2mcore, mcore2hf, verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("made")
    write_tiny_hf(work / "source")
    hf2mcore(work / "source", work / "torch_dist")
    hf2mcore(work / "source", work / "torch", Hf2McoreOptions(format="torch", tensor_model_parallel_size=2))
    hf2mcore(work / "source", work / "added", Hf2McoreOptions(as_iteration=1))
    hf2mcore(work / "source", work / "added", Hf2McoreOptions(as_iteration=2))
    mcore2hf(work / "torch_dist", work / "hf", Mcore2HfOptions(max_shard_size=200_000))
    shutil.rmtree(work / "source")
    return work


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "made", symlinks=True)
    return tmp_path / "made"


@pytest.mark.parametrize(
    ("name", "count"), [("hf", 14), ("torch_dist", 14), ("torch", 11), ("added/iter_0000002", 14), ("added", None)]
)
def test_undamaged(out: Path, name: str, count: int | None) -> None:
    report = verify(out / name)
    assert report.status == "same"
    assert report.data.get("files_checked") is not None
    if count:
        assert report.data["files_checked"] == count


def files(root: Path) -> list[Path]:
    return [p for p in sorted(root.rglob("*")) if p.is_file() and not any(q.is_symlink() for q in (p, *p.parents))]


def test_a_flipped_bit_in_any_file(out: Path) -> None:
    """Also in those that nothing else keeps a sum of: safetensors, JSON."""
    seen = 0
    for name in ("hf", "torch_dist", "torch", "added/iter_0000002"):
        for path in files(out / name):
            if path.name in ("vlconv.json", "latest_checkpointed_iteration.txt"):
                continue
            bit = 8 * (path.stat().st_size // 2) + 1
            flip(path, bit)
            report = verify(out / name)
            assert report.status == "different", path
            assert path.name in " ".join(f"{d.tensor} {d.note}" for d in report.differences)
            flip(path, bit)
            seen += 1
        assert verify(out / name).status == "same"
    assert seen > 40


def test_a_damaged_tensor_is_named(out: Path) -> None:
    path = next((out / "hf").glob("model-00002-*.safetensors"))
    flip(path, 8 * (path.stat().st_size - 1))
    (difference,) = verify(out / "hf").differences
    assert difference.tensor.endswith(".weight") or difference.tensor.endswith(".bias")
    assert difference.note.startswith(path.name)


@pytest.mark.parametrize(("name", "change"), [("gone", "is missing"), ("cut", "has "), ("longer", "has ")])
def test_other_damage(out: Path, name: str, change: str) -> None:
    path = out / "hf" / "tokenizer.json"
    if name == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size + (1 if name == "longer" else -1))
    (difference,) = verify(out / "hf").differences
    assert difference.tensor == "tokenizer.json" and difference.note.startswith(change)


def test_a_file_whose_loss_makes_it_unreadable_is_told_too(out: Path) -> None:
    next((out / "hf").glob("model-00001-*.safetensors")).unlink()
    report = verify(out / "hf")
    assert [d.tensor for d in report.differences] == ["model-00001-of-00004.safetensors"]
    assert "missing" in report.warnings[-1]


def test_what_is_not_listed_is_told(out: Path) -> None:
    (out / "hf" / "optimizer.bin").write_text("x")
    assert "not in vlconv.json: optimizer.bin" in verify(out / "hf").warnings


def test_a_trainers_own_iteration_beside_it_is_not_held_against_it(out: Path) -> None:
    """Trained on from here: the save directory's manifest speaks of another iteration."""
    shutil.copytree(out / "added/iter_0000001", out / "added/iter_0000009")
    (out / "added/latest_checkpointed_iteration.txt").write_text("9")
    report = verify(out / "added")
    assert report.status == "same" and "files" not in report.told


def test_a_damaged_manifest(out: Path) -> None:
    (out / "hf" / "vlconv.json").write_text("{")
    with pytest.raises(NotComparable, match=r"vlconv\.json is not valid JSON"):
        verify(out / "hf")


def test_a_dry_run_reads_no_file(out: Path) -> None:
    (out / "hf" / "tokenizer.json").unlink()
    report = verify(out / "hf", options=VerifyOptions(dry_run=True))
    assert report.status == "planned" and "vlconv.json" in report.told["manifest"]
