"""`.metadata`: opcode for opcode what Python's pickler makes of torch's own records, and equal to them once loaded."""

from __future__ import annotations

import pickle
import pickletools
from importlib import import_module
from pathlib import Path

import pytest
import torch
from opcodes import names, said
from torch.distributed.checkpoint import FileSystemReader
from torch.distributed.checkpoint import metadata as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo

from vlconv.converters.formats.pickles.dcp_pickle import Place, StoredBytes, StoredChunk, StoredKey, dcp_pickle
from vlconv.converters.formats.pickles.opcodes import GLOBALS

KEYS = [
    StoredKey("a.weight", "bfloat16", (600, 3), [
        StoredChunk((0, 0), (300, 3), Place("__0_0.distcp", 0, 2400)),
        StoredChunk((300, 0), (300, 3), Place("__0_1.distcp", 1 << 33, 70000)),
    ]),
    StoredKey("scalar", "float32", (), [StoredChunk((), (), Place("__0_1.distcp", 255, 256))]),
    StoredKey("é" * 200, "float16", (1, 2, 3, 4), [StoredChunk((0, 0, 0, 0), (1, 2, 3, 4), Place("x", 1, 2))]),
    StoredKey("b.weight", "bfloat16", (1 << 40,), [StoredChunk((0,), (1 << 40,), Place("x", 65535, 65536))]),
]  # fmt: skip
ENTRIES = [StoredBytes(f"a._extra_state/shard_{n}_2", Place("__0_1.distcp", n, 652)) for n in range(2)]


def torchs(keys: list[StoredKey], entries: list[StoredBytes]) -> dcp.Metadata:
    """The same in torch's records."""
    tensors: dict[str, dcp.TensorStorageMetadata | dcp.BytesStorageMetadata] = {}
    places: dict[dcp.MetadataIndex, _StorageInfo] = {}
    for name, dtype, shape, chunks in keys:
        tensors[name] = dcp.TensorStorageMetadata(
            dcp.TensorProperties(dtype=getattr(torch, dtype)),
            torch.Size(shape),
            [dcp.ChunkStorageMetadata(torch.Size(c.offsets), torch.Size(c.sizes)) for c in chunks],
        )
        for number, chunk in enumerate(chunks):
            places[dcp.MetadataIndex(name, chunk.offsets, number)] = _StorageInfo(*chunk.place)
    for name, place in entries:
        tensors[name] = dcp.BytesStorageMetadata()
        places[dcp.MetadataIndex(name)] = _StorageInfo(*place)
    return dcp.Metadata(tensors, storage_data=places, storage_meta=dcp.StorageMeta(), version="1.0.0")


def rows(count: int) -> list[StoredKey]:
    """A key of that many chunks."""
    return [StoredKey("a", "float32", (count,), [StoredChunk((n,), (1,), Place("x", n, 1)) for n in range(count)])]


@pytest.mark.parametrize(
    ("keys", "entries"),
    [(KEYS, ENTRIES), (KEYS[:1], []), (KEYS[1:2], []), ([], ENTRIES), ([], ENTRIES[:1]), ([], []), (rows(999), [])],
    ids=["all", "a tensor", "of one chunk", "entries", "an entry", "nothing", "many"],
)
def test_as_python_pickles_torchs_records(keys: list[StoredKey], entries: list[StoredBytes]) -> None:
    assert said(dcp_pickle(keys, entries, "1.0.0")) == said(pickle.dumps(torchs(keys, entries), 4))


@pytest.mark.parametrize("count", [1000, 1001, 2000, 2001])
def test_thousands_of_chunks(tmp_path: Path, count: int) -> None:
    """In many frames; torch and Python's own strict reader take them."""
    (tmp_path / ".metadata").write_bytes(data := dcp_pickle(rows(count), ENTRIES, "1.0.0"))
    expected = torchs(rows(count), ENTRIES)
    assert FileSystemReader(tmp_path).read_metadata().__dict__ | {"storage_meta": expected.storage_meta} == vars(
        expected
    )
    assert pickle._loads(data) == expected  # type: ignore[attr-defined]
    frames = [(at + 9, length) for opcode, length, at in pickletools.genops(data) if opcode.name == "FRAME"]
    assert len(frames) > 1 and max(length for _, length in frames) < 100_000
    begins = [2, *(at + length for at, length in frames)]
    assert begins == [*(at - 9 for at, _ in frames), len(data)]  # nothing between them, nor behind


def test_a_chunk_more_leaves_nothing_in_the_memo() -> None:
    """What is noted stays in a reader's memory until its end."""

    def noted(count: int) -> int:
        return sum("PUT" in opcode.name for opcode, _, _ in pickletools.genops(dcp_pickle(rows(count), [], "1.0.0")))

    assert noted(500) == noted(1) < 50


def test_names_are_torchs_own_and_no_others() -> None:
    """What a pickle may refer to is there, in torch, and makes nothing but values."""
    written = names(dcp_pickle(KEYS, ENTRIES, "1.0.0"))
    assert written == {
        *(f"torch {name}" for name in ("bfloat16", "float16", "float32", "Size")),
        *(f"torch.distributed.checkpoint.metadata {name}" for name in (
            "Metadata", "StorageMeta", "TensorStorageMetadata", "BytesStorageMetadata", "ChunkStorageMetadata",
            "TensorProperties", "MetadataIndex", "_MEM_FORMAT_ENCODING",
        )),
        "torch.distributed.checkpoint.filesystem _StorageInfo",
        "torch.serialization _get_layout",
    }  # fmt: skip
    for module, name in map(str.split, GLOBALS):
        found = getattr(import_module(module), name)
        assert isinstance(found, type | torch.dtype) or name in (
            "_get_layout",
            "_rebuild_tensor_v2",
            "_rebuild_tensor_v3",
        )
