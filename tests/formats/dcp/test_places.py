"""Items of a distributed checkpoint lie apart from one another, and what lies beside them is told."""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from references import differing, read_hf
from refusing import edit_metadata, refused
from tiny import write_tiny_hf
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import BytesStorageMetadata, ChunkStorageMetadata, MetadataIndex

from vlconv.converters import Hf2McoreOptions, Report, hf2mcore, mcore2hf
from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.dcp.metadata import DcpMetadata
from vlconv.converters.formats.dcp.places import check_apart, unclaimed

ATTENTION = "language_model.decoder.layers.self_attention"
QKV, Q_NORM, K_NORM = (f"{ATTENTION}.{name}.weight" for name in ("linear_qkv", "q_layernorm", "k_layernorm"))
FINAL = "language_model.decoder.final_layernorm.weight"
DATA = "__0_0.distcp"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good checkpoint: hf/ and mcore/."""
    work = tmp_path_factory.mktemp("model")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore", Hf2McoreOptions())
    return work


class Given:
    """A copy of it to damage."""

    def __init__(self, work: Path, model: Path) -> None:
        self.work, self.model = work, model
        self.release = shutil.copytree(model / "mcore", work / "mcore") / "release"

    def edit(self, change: Callable[[Any], None]) -> None:
        edit_metadata(self.release, change)

    def refused(self, *says: str) -> None:
        refused(
            mcore2hf,
            self.work / "mcore",
            self.work / "out",
            fault=CorruptError,
            says=(f"{DATA}: the items of ", *says),
            hint=".metadata is damaged",
        )

    def comes_back(self) -> Report:
        report = mcore2hf(self.work / "mcore", self.work / "out")
        assert differing(read_hf(self.work / "out"), read_hf(self.model / "hf")) == []
        return report


@pytest.fixture
def given(tmp_path: Path, model: Path) -> Given:
    return Given(tmp_path, model)


def items(metadata: Any, name: str) -> list[Any]:
    """The keys of a tensor's or entry's items, in order."""
    return sorted((k for k in metadata.storage_data if k.fqn == name), key=lambda k: tuple(k.offset or ()))


class TestOverlaps:
    def test_two_chunks_at_one_item(self, given: Given) -> None:
        def change(metadata: Any) -> None:
            first, second, *_ = items(metadata, QKV)
            metadata.storage_data[second] = metadata.storage_data[first]

        given.edit(change)
        given.refused(f"two chunks of {QKV} overlap, at byte ")

    @pytest.mark.parametrize("later_first", [False, True])
    def test_two_tensors_at_one_item(self, given: Given, later_first: bool) -> None:
        """Of one shape and dtype, every checksum right: the model would be another."""

        def change(metadata: Any) -> None:
            for one, other in zip(items(metadata, Q_NORM), items(metadata, K_NORM), strict=True):
                one, other = (other, one) if later_first else (one, other)
                metadata.storage_data[one] = metadata.storage_data[other]

        given.edit(change)
        given.refused(Q_NORM, " and ", K_NORM, "overlap, at byte ")

    @pytest.mark.parametrize(("start", "length"), [(0, 1), (0, -1), (-1, 0), (1, 0)])
    def test_by_one_byte(self, given: Given, start: int, length: int) -> None:
        """Longer, into the next; begun earlier, in the one before; shorter, or begun later at its length: no overlap
        where it ends earlier.
        """

        def change(metadata: Any) -> None:
            info = metadata.storage_data[items(metadata, QKV)[1]]
            info.offset, info.length = info.offset + start, info.length + length

        given.edit(change)
        if length < 0:
            refused(mcore2hf, given.work / "mcore", given.work / "out", fault=CorruptError, says=(DATA, QKV))
        else:
            given.refused(QKV)

    def test_an_entry_that_nobody_reads_over_a_weight(self, given: Given) -> None:
        def change(metadata: Any) -> None:
            (key,) = items(metadata, FINAL)
            metadata.state_dict_metadata["optimizer.x"] = BytesStorageMetadata()
            metadata.storage_data[MetadataIndex("optimizer.x")] = metadata.storage_data[key]

        given.edit(change)
        given.refused(FINAL, "optimizer.x")

    def test_one_item_in_two_files(self, given: Given) -> None:
        """The same place in another file is another place."""
        shutil.copyfile(given.release / DATA, given.release / "__1_0.distcp")

        def change(metadata: Any) -> None:
            second = items(metadata, QKV)[1]
            other = metadata.storage_data[second]
            metadata.storage_data[second] = _StorageInfo("__1_0.distcp", other.offset, other.length)

        given.edit(change)
        given.comes_back()


class TestFine:
    def test_ranks_without_rows(self, given: Given) -> None:
        """Each leaves an empty chunk behind the end; they are one to the metadata."""

        def change(metadata: Any) -> None:
            entry = metadata.state_dict_metadata[FINAL]
            (key,) = items(metadata, FINAL)
            (whole,) = entry.chunks
            offsets, empty = torch.Size([whole.sizes[0]]), torch.Size([0])
            entry.chunks += [ChunkStorageMetadata(offsets, empty), ChunkStorageMetadata(offsets, empty)]
            metadata.storage_data[MetadataIndex(FINAL, offsets, 1)] = metadata.storage_data[key]

        given.edit(change)
        given.comes_back()

    def test_nothing_within_an_item(self, given: Given) -> None:
        def change(metadata: Any) -> None:
            (key,) = items(metadata, FINAL)
            metadata.state_dict_metadata["rng_state"] = BytesStorageMetadata()
            metadata.storage_data[MetadataIndex("rng_state")] = _StorageInfo(
                DATA, metadata.storage_data[key].offset + 9, 0
            )

        given.edit(change)
        given.comes_back()


class TestUnclaimed:
    def test_nothing(self, given: Given) -> None:
        report = given.comes_back()
        assert "unclaimed" not in report.data and "unclaimed" not in report.told

    def test_a_tail(self, given: Given) -> None:
        with (given.release / DATA).open("ab") as file:
            file.write(b"\0" * 1234)
        report = given.comes_back()
        assert report.data["unclaimed"] == {DATA: 1234}
        assert report.told["unclaimed"].endswith(f"belong to nothing the checkpoint describes: 1.23 kB in {DATA}")

    def test_a_gap(self, given: Given) -> None:
        gone: list[int] = []

        def change(metadata: Any) -> None:
            name = next(name for name in metadata.state_dict_metadata if "_extra_state" in name)
            gone.append(metadata.storage_data[MetadataIndex(name)].length)
            del metadata.storage_data[MetadataIndex(name)]

        given.edit(change)
        assert given.comes_back().data["unclaimed"] == {DATA: gone[0]}

    def test_files_without_weights_are_not_looked_at(self, given: Given) -> None:
        def change(metadata: Any) -> None:
            metadata.state_dict_metadata["optimizer.x"] = BytesStorageMetadata()
            metadata.storage_data[MetadataIndex("optimizer.x")] = _StorageInfo("__7_0.distcp", 50, 60)

        given.edit(change)
        assert "unclaimed" not in given.comes_back().data


def tables(
    chunks: list[tuple[int, int, int, int]], entries: list[tuple[int, int, int]], axes: int = 1, empty: Any = ()
) -> DcpMetadata:
    """Metadata of chunks (tensor, file, offset, length), by tensor, and byte entries (file, offset, length)."""
    columns = {name: np.array([c[i] for c in chunks]) for i, name in enumerate(("tensor", "file", "offset", "length"))}
    columns |= {
        f"byte_{name}": np.array([e[i] for e in entries], np.int64)
        for i, name in enumerate(("file", "offset", "length"))
    }
    count = max((c[0] for c in chunks), default=-1) + 1
    boxes = [[0] * axes + [0 if i in empty else 1] * axes for i in range(len(chunks))]
    columns |= {"rank": np.full(count, axes), "shape": np.full(count * axes, 9), "box": np.array(boxes).reshape(-1)}
    files = 1 + max(c[1] for c in [*chunks, *((0, *e) for e in entries)])
    header = {
        "files": [f"__{i}_0.distcp" for i in range(files)],
        "names": [f"t{i}" for i in range(count)],
        "dtypes": ["bfloat16"] * count,
        "byte_names": [f"b{i}" for i in range(len(entries))],
    }
    return DcpMetadata.from_answer(header, columns)


def test_byte_by_byte(tmp_path: Path) -> None:
    """Against bytes counted one by one."""
    refusals = sum(byte_by_byte(tmp_path, random.Random(seed)) for seed in range(300))
    assert 50 < refusals < 250


def byte_by_byte(folder: Path, dice: random.Random) -> bool:
    """Whether items thrown into files are refused, which they are where two share a byte."""

    def place() -> tuple[int, int, int]:
        return dice.randrange(2), dice.randrange(20), dice.choice([0, 1, 3, 6])

    chunks = sorted((dice.randrange(3), *place()) for _ in range(dice.randrange(1, 6)))
    entries = [place() for _ in range(dice.randrange(3))]
    empty = {i for i in range(len(chunks)) if dice.random() < 0.3}
    metadata = tables(chunks, entries, axes=dice.randrange(1, 4), empty=empty)
    spans = [c[1:] for i, c in enumerate(chunks) if i not in empty] + entries
    shared = Counter((f, at) for f, start, length in spans for at in range(start, start + length))
    try:
        places = check_apart(metadata)
    except CorruptError:
        assert max(shared.values()) > 1
        return True
    assert max(shared.values(), default=1) == 1
    sizes = [dice.randrange(1, 40) for _ in metadata.files]
    for name, size in zip(metadata.files, sizes, strict=True):
        (folder / name).write_bytes(bytes(size))
    claimed = {(f, at) for f, start, length in [c[1:] for c in chunks] + entries for at in range(start, start + length)}
    wanted = [0, 2] if len(metadata.tensors) > 2 else [0]
    expected = {
        name: rest
        for f, (name, size) in enumerate(zip(metadata.files, sizes, strict=True))
        if any(c[0] in wanted and c[1] == f for c in chunks)
        and (rest := sum((f, at) not in claimed for at in range(size)))
    }
    assert unclaimed(metadata, places, folder, wanted) == expected
    return False


def test_hundreds_of_thousands(tmp_path: Path) -> None:
    """In a fraction of a second; the bound is for a busy machine, and far below what anything quadratic would take."""
    count = 300_000
    chunks = [(i // 100, i % 500, i // 500 * 1000, 1000) for i in range(count)]
    metadata = tables(chunks, [(500, i * 10, 10) for i in range(50_000)])
    begin = time.monotonic()
    places = check_apart(metadata)
    assert time.monotonic() - begin < 2
    (tmp_path / "__0_0.distcp").write_bytes(bytes(600_007))
    assert unclaimed(metadata, places, tmp_path, range(3000)) == {"__0_0.distcp": 7}
    metadata.item_offset[-1] = 1500
    with pytest.raises(CorruptError, match=r"__499_0\.distcp: the items of t\d+ and t2999 overlap, at byte 1500"):
        check_apart(metadata)
