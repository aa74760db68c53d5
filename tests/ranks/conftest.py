"""What runs of several processes have in common."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import Work
from tiny import write_tiny_hf

from vlconv.converters import hf2mcore
from vlconv.converters.conversion import fill
from vlconv.converters.workers import Workers


@pytest.fixture(scope="module", autouse=True)
def small_windows() -> Iterator[None]:
    """So that a tiny model's file is several windows, as a large one's is."""
    patch = pytest.MonkeyPatch()
    patch.setattr(fill, "workers_of", lambda threads, memory: Workers(2, 4096))
    yield
    patch.undo()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Megatron checkpoint of a tiny model, beside hf/."""
    work = tmp_path_factory.mktemp("source")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore")
    return work / "mcore"


@pytest.fixture
def work(source: Path, tmp_path: Path) -> Work:
    """A conversion of it that takes its time."""
    return Work(source, tmp_path)
