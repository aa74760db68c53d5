"""A checkpoint of more files than a process may have open: one of a thousand ranks, as fully
parallel saves leave it.
"""

from __future__ import annotations

import io
import resource
import subprocess
import sys
from pathlib import Path

import torch
from dcp import load
from references import differing, read_hf
from refusing import edit_metadata
from tiny import write_tiny_hf
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex, TensorStorageMetadata

from vlconv.converters import Hf2McoreOptions, hf2mcore

FILES = 1100
LIMIT = 256


def dealt_out(directory: Path) -> int:
    """Cut every tensor of a checkpoint into rows, each in a file of its own, written by torch; returns their number."""
    state, written = load(directory), 0

    def deal_out(metadata: Metadata) -> None:
        nonlocal written
        for name, entry in metadata.state_dict_metadata.items():
            if not isinstance(entry, TensorStorageMetadata):
                continue
            for index in [index for index in metadata.storage_data if index.fqn == name]:
                del metadata.storage_data[index]
            entry.chunks = []
            for row, part in enumerate(state[name].split(1) if state[name].ndim else [state[name]]):
                offsets = torch.Size([row, *(0 for _ in part.shape[1:])][: part.ndim])
                torch.save(part.clone(), buffer := io.BytesIO())
                written += 1
                file = f"__{written}_0.distcp"  # what is no tensor stays in __0_0
                (directory / file).write_bytes(buffer.getvalue())
                metadata.storage_data[MetadataIndex(name, offsets, row)] = _StorageInfo(file, 0, len(buffer.getvalue()))
                entry.chunks.append(ChunkStorageMetadata(offsets, part.shape))

    edit_metadata(directory, deal_out)
    return written


def test_a_thousand_ranks(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions())
    assert dealt_out(tmp_path / "mcore" / "release") > FILES
    for command in (["mcore2hf", "mcore", "out"], ["verify", "mcore", "hf"]):
        done = subprocess.run(
            [sys.executable, "-m", "vlconv", *command],
            cwd=tmp_path,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert differing(read_hf(tmp_path / "out"), read_hf(tmp_path / "hf")) == []
