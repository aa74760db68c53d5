"""What several processes write is, byte for byte, what one writes; and what they tell of it, too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from killing import tree
from processes import Prepare, document, run
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf

from vlconv.converters import Hf2McoreOptions, hf2mcore
from vlconv.converters.conversion import fill
from vlconv.converters.output.writing import shares
from vlconv.converters.ranks.forks import Forks

SAMPLED = 2


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as hf/, mcore/ and legacy/, with some NaN; and hybrid/, of which norms are computed."""
    work = tmp_path_factory.mktemp("models")
    config = tiny_config()
    weights = tiny_weights(tiny_shapes(config))
    for tensor in weights.values():
        tensor.view(-1)[0] = torch.nan
    write_tiny_hf(work / "hf", config, shards=2, tensors=weights)
    hf2mcore(work / "hf", work / "mcore")
    legacy = Hf2McoreOptions(format="torch", tensor_model_parallel_size=2, pipeline_model_parallel_size=2)
    hf2mcore(work / "hf", work / "legacy", legacy)
    write_tiny_hf(work / "hybrid hf", tiny_config("qwen3_5"), delta_dtype="bfloat16")
    hf2mcore(work / "hybrid hf", work / "hybrid")
    return work


COMMANDS: dict[str, tuple[str, ...]] = {
    "a file": ("mcore2hf", "mcore"),
    "files": ("mcore2hf", "legacy", "--max-shard-size", "60kB"),
    "computed": ("mcore2hf", "hybrid"),
    "hf2mcore": ("hf2mcore", "hf"),
    "rank files": ("hf2mcore", "hf", "--format", "torch", "--tp", "2", "--pp", "2"),
    "mcore2mcore": ("mcore2mcore", "legacy", "--as-layout", "pai"),
}


def noting(folder: Path) -> Prepare:
    """Each process notes which file it has filled, and how many bytes of it."""
    numbered = shares._numbered

    def prepare(rank: int) -> None:
        def note(number: int, *args: Any) -> Any:
            found = numbered(number, *args)
            with (folder / f"share {rank}").open("a") as file:
                file.write(f"{number} {found[1].nbytes}\n")
            return found

        shares._numbered = note

    return prepare


@pytest.mark.parametrize("command", COMMANDS)
def test_forks_write_the_same_bytes(models: Path, tmp_path: Path, command: str) -> None:
    """Of one process as of three that it is forked to."""
    name, source, *options = COMMANDS[command]
    made = noting(tmp_path)
    told = []
    for size in (1, 3):
        out = tmp_path / f"{size}"

        def prepare(rank: int, size: int = size) -> None:
            made(rank)
            fill.team_for = lambda nbytes, processes: Forks(size) if size > 1 else None  # type: ignore[assignment]

        (ended,) = run([name, models / source, out, *options, "--threads", "3", "--json"], 1, prepare)
        assert ended.code == 0, ended.said
        told.append(without_places(document(ended.said)))
    assert tree(tmp_path / "1") == tree(tmp_path / "3")
    assert told[0] == told[1]
    assert share(tmp_path, 0), "nothing was forked"


@pytest.mark.parametrize(("size", "command"), [(4, "a file"), *((2, command) for command in COMMANDS)], ids=str)
def test_the_same_bytes(models: Path, tmp_path: Path, size: int, command: str) -> None:
    name, source, *options = COMMANDS[command]
    (alone,), (lead, *others) = (
        run([name, models / source, tmp_path / out, *options, "--threads", "2", "--json"], number, noting(tmp_path))
        for number, out in ((1, "alone"), (size, "out"))
    )
    assert (alone.code, lead.code) == (0, 0), (alone.said, lead.said)
    assert others == [(0, "")] * (size - 1)
    assert tree(tmp_path / "out") == tree(tmp_path / "alone")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "out", *(f"share {n}" for n in range(size))]
    told, expected = document(lead.said), document(alone.said)
    assert (told.pop("ranks"), told.pop("hosts")) == (size, 1)
    assert told["facts"].pop("ranks") == f"{size} processes on one host, 2 threads each"
    assert without_places(told) == without_places(expected)
    shared = [share(tmp_path, rank) for rank in range(size)]
    even = (filled := sum(sum(one.values()) for one in shared)) / size
    assert 0.5 * told["bytes"] < filled < told["bytes"]  # headers are of no share
    assert all(0.9 * even < sum(one.values()) < 1.1 * even for one in shared), shared
    if command == "a file":
        assert all([*one] == [0] for one in shared)  # in ranges of it


def without_places(told: dict[str, Any]) -> dict[str, Any]:
    """But for what says where it was written, and how fast."""
    facts = {name: text for name, text in told["facts"].items() if name not in ("output", "written")}
    return {name: value for name, value in told.items() if name not in ("target", "seconds")} | {"facts": facts}


def share(folder: Path, rank: int) -> dict[int, int]:
    """File -> bytes, of the files that a process has filled."""
    lines = (folder / f"share {rank}").read_text().splitlines()
    return {int(number): int(nbytes) for number, nbytes in map(str.split, lines)}


def test_what_is_told_is_worth_comparing(models: Path, tmp_path: Path) -> None:
    """The sources have what several processes count."""
    for source, counted in (
        ("mcore", "104 items agree"),
        ("mcore", "1 NaN"),
        ("hybrid", "computed tensors were rounded"),
    ):
        (alone,) = run(["mcore2hf", models / source, tmp_path / counted], 1)
        assert counted in alone.said and f" 0 of {counted}" not in alone.said
