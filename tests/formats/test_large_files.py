"""Rank files beyond 4 GiB, as holes:
what is put around the storages is read by zipfile, by torch and by vlconv itself.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from pathlib import Path

import pytest
import torch

from vlconv.converters.formats.pickles.plain_pickle import StoredTensor, plain_pickle
from vlconv.converters.formats.zips.items import saved_parts
from vlconv.converters.formats.zips.torch_save import read_torch_save

GIB = 1 << 30
SHAPES = {
    "behind 4 GiB": [(4 * GIB - 1000,), (3, 7), (1,)],
    "4 GiB to the byte": [(2**32,), (5,)],
    "a byte less": [(2**32 - 1,), (5,)],
    "two large ones": [(5 * GIB,), (6 * GIB,), (2, 2)],
    "small ones alone": [(4,), (2, 3)],
    "none": [],
}
FEW = 1000
"""Storages up to this size hold numbers, larger ones a hole."""


def made(path: Path, shapes: list[tuple[int, ...]]) -> list[torch.Tensor]:
    """A file of uint8 storages, and what its small ones hold."""
    tensors = [
        torch.arange(torch.Size(shape).numel(), dtype=torch.uint8).reshape(shape) for shape in shapes if shape[0] <= FEW
    ]
    sizes = [torch.Size(shape).numel() for shape in shapes]
    parts = saved_parts(
        plain_pickle({"tensors": [StoredTensor(shape, "uint8", key) for key, shape in enumerate(shapes)]}), sizes
    )
    small = iter([t.numpy().tobytes() for t in tensors])
    contents = [next(small) if size <= FEW else b"" for size in sizes]
    with path.open("wb") as file:
        os.truncate(file.fileno(), parts.nbytes)
        written = 0
        for offset, data in [
            *parts.literals([zlib.crc32(content) for content in contents]),
            *zip(parts.offsets, contents, strict=True),
        ]:
            os.pwrite(file.fileno(), data, offset)
            written += len(data)
        assert written + sum(size for size in sizes if size > FEW) == parts.nbytes  # nothing between, nothing twice
    return tensors


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
class TestLargeFiles:
    def test_zipfile(self, tmp_path: Path, shapes: list[tuple[int, ...]]) -> None:
        tensors = made(tmp_path / "file", shapes)
        with zipfile.ZipFile(tmp_path / "file") as archive:
            infos = {info.filename: info for info in archive.infolist()}
            assert list(infos) == [
                "archive/data.pkl",
                "archive/byteorder",
                "archive/version",
                *(f"archive/data/{key}" for key in range(len(shapes))),
            ]
            assert [infos[f"archive/data/{key}"].file_size for key in range(len(shapes))] == [
                torch.Size(shape).numel() for shape in shapes
            ]
            keys = [key for key, shape in enumerate(shapes) if shape[0] <= FEW]
            assert [archive.read(f"archive/data/{key}") for key in keys] == [
                t.numpy().tobytes() for t in tensors
            ]  # and their CRC-32

    def test_torch(self, tmp_path: Path, shapes: list[tuple[int, ...]]) -> None:
        tensors = made(tmp_path / "file", shapes)
        found = torch.load(tmp_path / "file", mmap=True, weights_only=True)["tensors"]
        assert [tuple(t.shape) for t in found] == shapes
        small = [t for t in found if t.shape[0] <= FEW]
        assert all(torch.equal(a, b) for a, b in zip(small, tensors, strict=True))

    def test_read_back(self, tmp_path: Path, shapes: list[tuple[int, ...]]) -> None:
        tensors = made(tmp_path / "file", shapes)
        saved = read_torch_save(tmp_path / "file")
        found = [saved.tensor(ref) for ref in saved.tree["tensors"]]
        assert [t.shape for t in found] == shapes
        assert [t.data_offset % 64 for t in found] == [0] * len(shapes)  # where torch puts them too
        with (tmp_path / "file").open("rb") as file:
            data = [os.pread(file.fileno(), t.nbytes, t.data_offset) for t in found if t.nbytes <= FEW]
        assert data == [t.numpy().tobytes() for t in tensors]


@pytest.mark.slow
def test_more_members_than_16_bits_count(tmp_path: Path) -> None:
    tensors = made(tmp_path / "file", [(1,)] * 70_000)
    with zipfile.ZipFile(tmp_path / "file") as archive:
        assert len(archive.namelist()) == 70_003
        assert archive.read("archive/data/69999") == tensors[-1].numpy().tobytes()
    assert len(read_torch_save(tmp_path / "file").members) == 70_003
