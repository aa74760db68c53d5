"""What several processes find of two sides, or of one, is what one finds."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from memory import Memory
from processes import Prepare, document, run
from refusing import flip
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf

from vlconv.converters import Mcore2HfOptions, Silent, hf2mcore, mcore2hf
from vlconv.converters.ranks import forks
from vlconv.converters.verification.comparison import compare

SAMPLED = 2


@pytest.fixture(scope="module", autouse=True)
def small_windows() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(compare, "WINDOW", 4096)
    patch.setattr(compare, "MATRIX", 4096)
    yield
    patch.undo()


EMBEDDING, NORM = "model.language_model.embed_tokens.weight", "model.language_model.norm.weight"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model as hf/ and mcore/, another/ with other numbers, wide/ with other dtypes; and a hybrid one."""
    work = tmp_path_factory.mktemp("models")
    config = tiny_config()
    weights = tiny_weights(tiny_shapes(config))
    write_tiny_hf(work / "hf", config, tensors=weights)
    hf2mcore(work / "hf", work / "mcore")
    mcore2hf(work / "mcore", work / "wide", Mcore2HfOptions(dtype="float32"))
    others = {name: tensor.clone() for name, tensor in weights.items()}
    for tensor in others.values():
        tensor.view(-1)[[0, -1]] += 1
    others[EMBEDDING][3:290, 5] += 1  # over many windows
    others[NORM][7] = torch.inf
    write_tiny_hf(work / "another", config, tensors=others)
    write_tiny_hf(work / "hybrid hf", tiny_config("qwen3_5"), delta_dtype="bfloat16")
    hf2mcore(work / "hybrid hf", work / "hybrid")
    return work


CASES: dict[str, tuple[int, tuple[str, ...]]] = {
    "same": (0, ("mcore", "hf")),
    "different": (1, ("mcore", "another")),
    "values": (0, ("mcore", "wide", "--values")),
    "by rule": (0, ("hybrid", "hybrid hf")),
    "round trip": (0, ("hybrid",)),
    "on disk": (0, ("mcore", "--on-disk")),
}


def noting(folder: Path) -> Prepare:
    """Each process notes the windows that it has compared."""
    window = compare._Run._window

    def prepare(rank: int) -> None:
        def note(self: Any, boxes: Any) -> None:
            window(self, boxes)
            with (folder / f"windows {rank}").open("a") as file:
                file.write("x")

        compare._Run._window = note  # type: ignore[method-assign]

    return prepare


@pytest.mark.parametrize(("size", "case"), [(4, "different"), *((2, case) for case in CASES)], ids=str)
def test_the_same_is_found(models: Path, tmp_path: Path, size: int, case: str) -> None:
    code, named = CASES[case]
    args = [models / name if (models / name).is_dir() else name for name in named]
    found = []
    for number in (1, size):
        (noted := tmp_path / f"{number}").mkdir()
        ended = run(["verify", *args, "--json"], number, noting(noted))
        assert [one.code for one in ended] == [code] * number, ended
        assert [one.said for one in ended[1:]] == [""] * (number - 1)
        found.append(document(ended[0].said))
    alone, together = found
    assert (together.pop("ranks"), together.pop("hosts")) == (size, 1)
    assert without_time(together) == without_time(alone)
    windows = [(noted / f"windows {rank}").stat().st_size for rank in range(size)]
    assert min(windows) > 0.5 * max(windows), windows


@pytest.mark.parametrize("case", CASES)
def test_forks_find_the_same(models: Path, case: str) -> None:
    """Of one process as of three that it is forked to."""
    code, named = CASES[case]
    args = [models / name if (models / name).is_dir() else name for name in named]
    found = []
    for size in (1, 3):
        (ended,) = run(["verify", *args, "--json"], 1, lambda _, size=size: forked(size))
        assert ended.code == code, ended
        found.append(without_time(document(ended.said)))
    assert found[0] == found[1]


def forked(size: int) -> None:
    """Every comparison is done by so many."""
    compare.team_for = lambda nbytes, processes: forks.Forks(size) if size > 1 else None


class Rounding(Memory):
    """Counts the elements that were read."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        super().__init__(tensors)
        self.read = 0
        self._lock = threading.Lock()

    def read_into(self, box: Any, out: Any) -> None:
        super().read_into(box, out)
        with self._lock:
            self.read += box.size

    def hand_over(self) -> int:
        counted, self.read = self.read, 0
        return counted

    def take_over(self, counted: int) -> None:
        self.read += counted


def test_what_was_counted_before_a_fork_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "team_for", lambda nbytes, processes: forks.Forks(3))
    sides = [Rounding({"t": torch.zeros(100, 100)}) for _ in range(2)]
    for count in (1, 2, 3):
        assert compare.compare(*sides, 3, Silent()).differences == []
        assert [side.read for side in sides] == [10000 * count] * 2


@pytest.mark.parametrize("at", [100_000, 450_000, 640_000])
def test_damage_is_told_whichever_fork_read_it(models: Path, tmp_path: Path, at: int) -> None:
    source = Path(shutil.copytree(models / "mcore", tmp_path / "damaged"))
    flip(source / "release/__0_0.distcp", 8 * at)
    (ended,) = run(["verify", source, models / "hf"], 1, lambda _: forked(3))
    assert ended.code == 3 and "are damaged: CRC-32" in ended.said


def without_time(told: dict[str, Any]) -> dict[str, Any]:
    """But for how fast it was, and how many did it."""
    facts = {name: text for name, text in told["facts"].items() if name not in ("compared", "ranks")}
    return {name: value for name, value in told.items() if name != "seconds"} | {"facts": facts}


def test_what_is_found_is_worth_comparing(models: Path) -> None:
    told = document(run(["verify", models / "mcore", models / "another", "--json"], 1)[0].said)
    found = {d["tensor"]: (d["count"], d["first"]) for d in told["differences"]}
    assert found.pop(EMBEDDING) == (289, [0, 0]) and found.pop(NORM) == (3, [0])
    assert {count for count, _ in found.values()} == {2} and not any(any(first) for _, first in found.values())
    told = document(run(["verify", models / "hybrid", models / "hybrid hf", "--json"], 1)[0].said)
    assert "by_rule" in told["facts"]


@pytest.mark.parametrize("at", [100_000, 450_000, 640_000])
def test_damage_is_told_whoever_read_it(models: Path, tmp_path: Path, at: int) -> None:
    source = Path(shutil.copytree(models / "mcore", tmp_path / "damaged"))
    flip(source / "release/__0_0.distcp", 8 * at)
    ended = run(["verify", source, models / "hf"], 2)
    assert [one.code for one in ended] == [3, 3] and ended[1].said == ""
    assert "not comparable: " in ended[0].said and "are damaged: CRC-32" in ended[0].said


def test_an_error_of_one_is_told(models: Path) -> None:
    def fails(*args: object) -> int:
        raise OSError(5, "Input/output error")

    def prepare(rank: int) -> None:
        shared = compare._Shared.__call__

        def call(self: Any, member: Any) -> None:
            if rank:
                os.preadv = fails  # type: ignore[assignment]
            shared(self, member)

        compare._Shared.__call__ = call  # type: ignore[method-assign]

    ended = run(["verify", models / "hf", models / "mcore"], 2, prepare)
    assert [one.code for one in ended] == [3, 1] and ended[1].said == ""
    assert "cannot be read: Input/output error" in ended[0].said and "That was rank 1 on " in ended[0].said


def test_a_witness_is_alone(models: Path) -> None:
    ended = run(["verify", models / "mcore", "--witness", "megatron-core"], 2)
    assert [one.code for one in ended] == [3, 3]
    assert "not comparable: a witness reads in one process alone\n" in ended[0].said
