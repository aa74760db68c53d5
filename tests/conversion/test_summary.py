"""What a command says of itself: sizes, dtypes, checksums, files; and in which order it refuses and shows its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import write_reference
from tiny import write_tiny_hf

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, Report, hf2mcore, mcore2hf
from vlconv.converters.errors import TargetError, sized
from vlconv.converters.formats.chunks import Extent
from vlconv.converters.formats.dcp import read as dcp
from vlconv.converters.output import directory


@pytest.mark.parametrize(
    ("nbytes", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (74_240, "74.2 kB"),
        (4_310_000, "4.31 MB"),
        (99_951, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (9_996_000_000, "10.0 GB"),
        (16 << 30, "17.2 GB"),
        (10**15, "1000 TB"),
    ],
)
def test_sizes_have_three_digits(nbytes: int, words: str) -> None:
    assert sized(nbytes) == words


class Seen:
    """Remembers what an observer is told."""

    def __init__(self) -> None:
        self.plans: list[dict[str, str]] = []

    def planned(self, report: Report) -> None:
        self.plans.append(report.told)

    def progress(self, done: int, total: int) -> None:
        assert 0 <= done <= total


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_tiny_hf(tmp_path / "hf")
    return tmp_path / "hf"


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_bad_target_is_refused_before_a_plan_is_shown(source: Path, dry_run: bool) -> None:
    seen = Seen()
    for target in (source, source / "inside", source.parent):
        with pytest.raises(TargetError):
            hf2mcore(source, target, Hf2McoreOptions(dry_run=dry_run), seen)
    assert seen.plans == []


def test_the_plan_comes_before_the_result(source: Path, tmp_path: Path) -> None:
    seen = Seen()
    report = hf2mcore(source, tmp_path / "mcore", Hf2McoreOptions(threads=1), seen)
    (plan,) = seen.plans
    assert plan.items() <= report.told.items()
    assert report.told.keys() - plan.keys() == {"numbers", "manifest", "written"}
    assert "kB" in plan["output"]
    assert "GB" not in plan["output"]


def test_files_are_counted(source: Path, tmp_path: Path) -> None:
    hf2mcore(source, tmp_path / "mcore")
    report = mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(max_shard_size=100_000))
    shards = sorted(p.name for p in (tmp_path / "back").glob("*.safetensors"))
    assert len(shards) > 2
    assert report.data["weight_files"] == len(shards)
    assert report.data["files"] == [*shards, "model.safetensors.index.json", "config.json"]
    assert report.data["copied_files"] == len(report.data["side_files"]) > 0
    assert (
        f"in {len(shards) + 2} files, {len(shards)} of them with weights, and {len(report.data['side_files'])} copied"
        in report.told["written"]
    )
    assert report.data["bytes"] == sum((tmp_path / "back" / name).stat().st_size for name in report.data["files"])


def test_float32_among_bfloat16_is_named(tmp_path: Path) -> None:
    config = tiny()
    patterns = ["*.q_norm.weight", "model.visual.pos_embed.weight"]
    checkpoint = save(tmp_path / "ckpt", config, random_hf_tensors(config, float32=patterns), Topology())
    options: dict[str, Any] = {"reference": str(write_reference(tmp_path / "reference", config)), "dry_run": True}
    report = mcore2hf(checkpoint, tmp_path / "hf", Mcore2HfOptions(**options))
    said, norm = report.told["dtypes"], "language_model.decoder.layers.{}.self_attention.q_layernorm.weight"
    names = [norm.format(i) for i in range(4)] + ["vision_model.pos_embed.weight"]
    assert sorted(report.data["other_dtypes"]["float32"]) == names
    assert said.startswith("kept as they are: 5 float32 (")
    assert said.endswith(f"… 2 more) among {report.data['dtypes']['bfloat16']} bfloat16")
    cast = mcore2hf(checkpoint, tmp_path / "hf", Mcore2HfOptions(**options, dtype="bfloat16"))
    assert cast.told["dtypes"].startswith("all cast to bfloat16: 5 float32 (")


def test_one_dtype_is_one_word(source: Path, tmp_path: Path) -> None:
    report = hf2mcore(source, tmp_path / "mcore", Hf2McoreOptions(dry_run=True))
    assert report.told["dtypes"] == f"kept as they are: {report.data['dtypes']['bfloat16']} bfloat16"


def test_checksums_are_counted(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hf2mcore(source, tmp_path / "mcore")
    report = mcore2hf(tmp_path / "mcore", tmp_path / "back")
    items = report.data["checksums"]["checked"]
    assert report.data["checksums"] == {"checked": items, "none_stated": 0}
    assert items > 100
    assert report.told["checksums"] == f"{items} items agree with their CRC-32"
    located, seen = dcp._Locate.__call__, []

    def without(self: Any, item: int) -> Extent:
        extent = located(self, item)
        seen.append(item)
        return extent._replace(crc=0) if len(set(seen)) <= 3 else extent

    monkeypatch.setattr(dcp._Locate, "__call__", without)
    report = mcore2hf(tmp_path / "mcore", tmp_path / "again", Mcore2HfOptions(threads=1))
    assert report.data["checksums"] == {"checked": items - 3, "none_stated": 3}
    assert report.told["checksums"] == f"{items - 3} items agree with their CRC-32, 3 whose file states none"


def test_what_could_not_be_removed_is_told(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hf2mcore(source, tmp_path / "mcore")
    monkeypatch.setattr(directory, "remove", lambda staging: None)
    report = hf2mcore(source, tmp_path / "mcore", Hf2McoreOptions(overwrite=True))
    assert report.warnings == [
        f"what was in {tmp_path / 'mcore'} before could not be removed: it is in {tmp_path / 'mcore.partial'}"
    ]
    assert report.status == "done"


def test_as_many_threads_as_asked(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlconv.converters.output.writing import writer as write

    asked = []
    real = write.ThreadPoolExecutor
    monkeypatch.setattr(write, "ThreadPoolExecutor", lambda max_workers: asked.append(max_workers) or real(max_workers))
    hf2mcore(source, tmp_path / "mcore", Hf2McoreOptions(threads=7))
    mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(threads=1))
    assert asked == [7, 1]
