"""How many threads a run takes, and how much memory: by what is asked for, the machine, and its container."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlconv.converters import workers
from vlconv.converters.errors import OptionError
from vlconv.converters.workers import Workers, processes_of, processors, workers_of

MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(workers, "QUOTA", tmp_path / "cpu.max")
    return tmp_path / "cpu.max"


def machine(cores: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda _: set(range(cores)))  # type: ignore[attr-defined]


@pytest.mark.parametrize(("cores", "threads"), [(1, 4), (2, 4), (4, 4), (7, 7), (16, 8), (64, 8)])
def test_by_the_machine(cores: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(cores, monkeypatch)
    assert workers_of(None) == Workers(threads, 16 * MIB)
    assert workers_of(3) == Workers(3, 16 * MIB)
    assert workers_of(None, most=4) == Workers(4, 16 * MIB)
    assert workers_of(12, most=4) == Workers(12, 16 * MIB)


@pytest.mark.parametrize(("threads", "processes"), [(1, 1), (2, 2), (3, 2), (4, 2), (5, 3), (8, 4), (16, 8)])
def test_processes_have_two_threads_each(threads: int, processes: int) -> None:
    assert processes_of(Workers(threads)) == processes


@pytest.mark.parametrize(
    ("text", "count"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("1000 100000", 1), ("900000 100000", 8), ("", 8)],
)
def test_a_container_that_gets_less(text: str, count: int, no_quota: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(8, monkeypatch)
    no_quota.write_text(text)
    assert processors() == count


@pytest.mark.parametrize(
    ("threads", "memory", "expected"),
    [
        (2, 136, Workers(2, 16 * MIB)),
        (None, 136, Workers(2, 16 * MIB)),
        (None, 100, Workers(1, 16 * MIB)),
        (None, 208, Workers(4, 16 * MIB)),
        (None, 1000, Workers(8, 16 * MIB)),
        (4, 136, Workers(4, 7 * MIB)),  # asked for: the windows are smaller then
        (None, 90, Workers(1, 11 * MIB)),
        (None, 70, Workers(1, 1 * MIB)),
        (16, 80, Workers(2, 2 * MIB)),
    ],
)
def test_within_memory(threads: int | None, memory: int, expected: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(8, monkeypatch)
    found = workers_of(threads, memory * MIB)
    assert found == expected
    assert found.memory <= memory * MIB


def test_what_two_and_sixteen_take() -> None:
    """The bounds that README states: 64 MB, and 36 MB for each thread."""
    assert (Workers(2).memory, Workers(16).memory) == (136 * MIB, 640 * MIB)


def test_too_little() -> None:
    with pytest.raises(OptionError, match=r"72\.4 MB is less than the 73\.4 MB that"):
        workers_of(None, 69 * MIB)
