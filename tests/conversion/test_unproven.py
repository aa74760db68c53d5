"""What nothing vouches for: items without a checksum, and holes where tensors lie. Told; refused with --strict."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.legacy import save_legacy
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_reference
from refusing import refused
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    Report,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
    verify,
)
from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.chunks import Extent
from vlconv.converters.formats.holes import MOST, find_holes, told
from vlconv.converters.formats.open_files import OpenFiles

BLOCK = 4096
"""Holes begin and end at multiples of it, on every file system that the tests may run on."""

NONE_STATED = "items state no checksum: damage in them would not be seen"
DATA, SHARD = "release/__0_0.distcp", "model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as hf/, mcore/ and legacy/, and the latter two without checksums, all with tensors of many blocks."""
    work = tmp_path_factory.mktemp("made")
    write_tiny_hf(work / "hf", tiny_config(text={"vocab_size": 500}))
    hf2mcore(work / "hf", work / "mcore")
    config = tiny()
    save_legacy(work / "legacy", config, random_hf_tensors(config), Topology(tp=2))
    write_reference(work / "legacy" / "huggingface", config)
    for source in ("mcore", "legacy"):
        shutil.copytree(work / source, work / f"unsummed-{source}")
    without_sums(work / "unsummed-mcore" / DATA)
    for path in sorted((work / "unsummed-legacy").rglob("model_optim_rng.pt")):
        with no_sums():
            torch.save(torch.load(path, weights_only=False), path)
    return work


@pytest.fixture
def work(made: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


@contextmanager
def no_sums() -> Iterator[None]:
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(True)


def without_sums(path: Path) -> None:
    """Put 0 in place of every checksum of a stored tensor, in both headers: what torch writes when it is told so."""
    data = bytearray(path.read_bytes())
    for magic, crc, name in ((b"PK\x03\x04", 14, 26), (b"PK\x01\x02", 16, 28)):
        at = data.find(magic)
        while at >= 0:
            size = int.from_bytes(data[at + name : at + name + 2], "little")
            start = at + (30 if magic[2] == 3 else 46)
            if bytes(data[start : start + size]).endswith(b"/data/0"):
                data[at + crc : at + crc + 4] = bytes(4)
            at = data.find(magic, at + 4)
    path.write_bytes(data)


def punched(path: Path, start: int, stop: int) -> None:
    """The same file with a hole."""
    data, times = path.read_bytes(), path.stat()
    path.unlink()
    with path.open("wb") as file:
        file.write(data[:start])
        file.seek(stop)
        file.write(data[stop:])
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert path.stat().st_blocks * 512 < len(data), "this file system keeps no holes"


def inside(path: Path, tensor: torch.Tensor) -> tuple[int, int]:
    """Two blocks of a file that lie in a tensor."""
    data = tensor.contiguous().view(torch.uint8).numpy().tobytes()
    first = path.read_bytes().find(data)
    assert first >= 0
    start = -(-first // BLOCK) * BLOCK
    assert start + 2 * BLOCK <= first + len(data)
    return start, start + 2 * BLOCK


def embedding(work: Path) -> torch.Tensor:
    found: torch.Tensor = read_hf(work / "hf")["model.language_model.embed_tokens.weight"]
    return found


def of(report: Report, words: str) -> list[str]:
    return [warning for warning in report.warnings if words in warning]


class TestItemsWithoutAChecksum:
    @pytest.mark.parametrize("source", ["mcore", "legacy"])
    @pytest.mark.parametrize(
        ("command", "options"), [(mcore2hf, Mcore2HfOptions), (mcore2mcore, Mcore2McoreOptions)], ids=["hf", "mcore"]
    )
    def test_are_counted_and_refused(self, work: Path, source: str, command: Any, options: Any) -> None:
        stated = command(work / source, work / "stated")
        assert of(stated, "checksum") == []
        report = command(work / f"unsummed-{source}", work / "none")
        items = stated.data["checksums"]["checked"]
        assert of(report, "checksum") == [f"{items} of {items} {NONE_STATED}"]
        shutil.rmtree(work / "none")
        says = f"{items} of {items} {NONE_STATED}"
        refused(
            command,
            work / f"unsummed-{source}",
            work / "none",
            options(strict=True),
            fault=CorruptError,
            says=says,
            hint="set_crc32_options(True)",
        )
        assert command(work / source, work / "again", options(strict=True)).status == "done"

    def test_of_a_hugging_face_directory_are_none(self, work: Path) -> None:
        """Its format keeps no checksums, which is no fault of the files."""
        report = hf2mcore(work / "hf", work / "out", Hf2McoreOptions(strict=True))
        assert of(report, "checksum") == []

    def test_verify(self, work: Path) -> None:
        (work / "unsummed-mcore/vlconv.json").unlink()  # it was written before the sums were taken out
        (warning,) = verify(work / "unsummed-mcore").warnings
        assert warning.endswith(NONE_STATED)
        (warning,) = verify(work / "hf", work / "unsummed-mcore").warnings
        assert warning.startswith("B: ")
        assert warning.endswith(NONE_STATED)
        assert verify(work / "hf", work / "mcore").warnings == []


SPARSE = [("hf", SHARD, hf2mcore, Hf2McoreOptions), ("unsummed-mcore", DATA, mcore2hf, Mcore2HfOptions)]


class TestHoles:
    @pytest.mark.parametrize(("source", "name", "command", "options"), SPARSE)
    def test_are_told_and_refused(self, work: Path, source: str, name: str, command: Any, options: Any) -> None:
        path = work / source / name
        start, stop = inside(path, embedding(work))
        assert of(command(work / source, work / "before", options(dry_run=True)), "read as zeros") == []
        punched(path, start, stop)
        for dry_run in (True, False):
            (warning,) = of(command(work / source, work / f"out-{dry_run}", options(dry_run=dry_run)), "read as zeros")
            assert str(path) in warning
            assert f"bytes {start} to {stop}" in warning
            assert "8.19 kB" in warning
            refused(
                command,
                work / source,
                work / "strict",
                options(dry_run=dry_run, strict=True),
                fault=CorruptError,
                says=(str(path), f"bytes {start} to {stop}"),
                hint="Copy the file again",
            )

    def test_of_rank_files(self, work: Path) -> None:
        path = work / "unsummed-legacy" / "release" / "mp_rank_01" / "model_optim_rng.pt"
        state = torch.load(path, weights_only=False)["model"]
        start, stop = inside(path, state["language_model.embedding.word_embeddings.weight"])
        punched(path, start, stop)
        (warning,) = of(mcore2hf(work / "unsummed-legacy", work / "out", Mcore2HfOptions(dry_run=True)), "as zeros")
        assert f"{path}: 8.19 kB" in warning
        assert f"bytes {start} to {stop}" in warning

    def test_verify(self, work: Path) -> None:
        punched(path := work / "hf" / SHARD, *inside(path, embedding(work)))
        assert of(verify(work / "mcore", work / "hf"), "read as zeros")[0].startswith("B: ")

    def test_a_checksum_decides(self, work: Path) -> None:
        """Zeros that were saved are right, however the file system keeps them; others are damage."""
        path = work / "mcore" / DATA
        punched(path, *inside(path, embedding(work)))
        refused(mcore2hf, work / "mcore", work / "out", fault=CorruptError, says=(str(path), "CRC-32"))

    def test_right_zeros_are_no_hole(self, tmp_path: Path) -> None:
        """Rows of padding that a file system stores as a hole."""
        write_tiny_hf(tmp_path / "hf")
        hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(make_vocab_size_divisible_by=1024))
        path = tmp_path / "mcore" / DATA
        start = path.read_bytes().find(bytes(16 * BLOCK)) // BLOCK * BLOCK + BLOCK
        punched(path, start, start + 8 * BLOCK)
        report = mcore2hf(tmp_path / "mcore", tmp_path / "out", Mcore2HfOptions(strict=True))
        assert of(report, "zeros") == []
        assert differing(read_hf(tmp_path / "out"), read_hf(tmp_path / "hf")) == []


class TestWhereHolesAre:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Blocks 2 to 4 and 8 of 12 are holes."""
        path = tmp_path / "data"
        with path.open("wb") as file:
            for block in (0, 1, 5, 6, 7, 9, 10, 11):
                file.seek(block * BLOCK)
                file.write(b"x" * BLOCK)
        return path

    def found(self, path: Path, *extents: tuple[float, float], crc: int | None = None) -> list[tuple[float, float]]:
        """In blocks."""
        listed = [Extent(str(path), int(a * BLOCK), int((b - a) * BLOCK), crc) for a, b in extents]
        return [(a / BLOCK, b / BLOCK) for one in find_holes(listed, OpenFiles()) for a, b in one.spans]

    @pytest.mark.parametrize(
        ("extents", "holes"),
        [
            ([(0, 12)], [(2, 5), (8, 9)]),
            ([(0, 2), (5, 8), (9, 12)], []),
            ([(0, 2.5)], [(2, 2.5)]),
            ([(4.5, 6)], [(4.5, 5)]),
            ([(3, 4)], [(3, 4)]),
            ([(3, 4), (4, 7), (2.5, 3)], [(2.5, 5)]),
            ([(0, 4), (3, 4)], [(2, 4)]),
            ([(8, 8)], []),
        ],
    )
    def test_only_where_tensors_lie(
        self, path: Path, extents: list[tuple[float, float]], holes: list[tuple[float, float]]
    ) -> None:
        assert self.found(path, *extents) == holes
        assert self.found(path, *extents, crc=1) == []
        assert self.found(path, *extents, crc=0) == holes

    def test_at_the_end(self, path: Path) -> None:
        os.truncate(path, 20 * BLOCK)
        assert self.found(path, (9, 20)) == [(12, 20)]

    @pytest.mark.parametrize("code", [22, 95])
    def test_a_file_system_that_does_not_say(self, path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
        def refuse(*_: object) -> int:
            raise OSError(code, os.strerror(code))

        monkeypatch.setattr(os, "lseek", refuse)
        assert self.found(path, (0, 12)) == []

    def test_very_many(self, tmp_path: Path) -> None:
        """Of files and of holes: some are named, and the rest is counted."""
        extents = []
        for number in range(13):
            with (path := tmp_path / f"f{number:02}").open("wb") as file:
                for block in range(2 * (MOST + 5 if not number else 5)):
                    file.seek(2 * block * BLOCK)
                    file.write(b"x" * BLOCK)
            extents.append(Extent(str(path), 0, path.stat().st_size))
        found = find_holes(extents, OpenFiles())
        assert len(found) == 13
        assert len(found[0].spans) == MOST
        lines = told(found)
        assert len(lines) == 11
        assert f" and {MOST - 3} more" in lines[0]
        assert lines[-1] == "… and 3 more files with holes in tensors"
