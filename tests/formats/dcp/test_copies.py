"""A data file copied over another one, in checkpoints that torch's own writer made of equal shards."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
import torch
from dcp import load
from references import differing, read_hf
from refusing import edit_metadata, refused
from tiny import write_tiny_hf, write_weights
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorStorageMetadata

from vlconv.converters import hf2mcore, mcore2hf
from vlconv.converters.errors import CorruptError

RANKS = 4


def sharded(directory: Path) -> None:
    """Every tensor whose rows divide among the ranks in equal parts, each in its rank's file, at equal places."""
    state = load(directory)
    files = [bytearray() for _ in range(RANKS)]

    def deal_out(metadata: Metadata) -> None:
        for name, entry in metadata.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata) or state[name].ndim < 2:
                continue
            axis = 1 if state[name].shape[0] % RANKS else 0
            if state[name].shape[axis] % RANKS:
                continue
            for index in [index for index in metadata.storage_data if index.fqn == name]:
                del metadata.storage_data[index]
            entry.chunks = []
            for rank, part in enumerate(state[name].chunk(RANKS, axis)):
                torch.save(part.clone(), buffer := io.BytesIO())
                offsets = [0] * part.ndim
                offsets[axis] = rank * part.shape[axis]
                place = _StorageInfo(f"__{rank + 1}_0.distcp", len(files[rank]), len(buffer.getvalue()))
                files[rank] += buffer.getvalue()
                metadata.storage_data[MetadataIndex(name, torch.Size(offsets), rank)] = place
                entry.chunks.append(ChunkStorageMetadata(torch.Size(offsets), part.shape))

    edit_metadata(directory, deal_out)
    for rank, data in enumerate(files):
        (directory / f"__{rank + 1}_0.distcp").write_bytes(data)


@pytest.fixture
def release(tmp_path: Path) -> Path:
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    sharded(tmp_path / "mcore" / "release")
    return tmp_path / "mcore" / "release"


def test_as_saved(tmp_path: Path, release: Path) -> None:
    mcore2hf(tmp_path / "mcore", tmp_path / "out")
    assert differing(read_hf(tmp_path / "out"), read_hf(tmp_path / "hf")) == []


@pytest.mark.parametrize(("source", "target"), [(1, 2), (4, 1)])
def test_copied(tmp_path: Path, release: Path, source: int, target: int) -> None:
    shutil.copyfile(release / f"__{source}_0.distcp", release / f"__{target}_0.distcp")
    names = [f"__{number}_0.distcp" for number in sorted((source, target))]
    refused(mcore2hf, tmp_path / "mcore", tmp_path / "out", fault=CorruptError, says=" and ".join(names))


def test_one_number_each_is_no_evidence(tmp_path: Path) -> None:
    """As after an initialisation with zeros."""
    tensors = write_tiny_hf(tmp_path / "hf")
    write_weights(tmp_path / "hf", {name: torch.ones_like(tensor) for name, tensor in tensors.items()})
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    sharded(tmp_path / "mcore" / "release")
    assert mcore2hf(tmp_path / "mcore", tmp_path / "out").status == "done"
