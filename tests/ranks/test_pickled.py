"""Readers in another process: they read the same there, and what was read there is counted here."""

from __future__ import annotations

import os
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from memory import Memory, all_bits
from tiny import write_tiny_hf

from vlconv.converters import Hf2McoreOptions, hf2mcore
from vlconv.converters.checkpoint.absent.union import Union, without
from vlconv.converters.checkpoint.hf_side import open_hf_side
from vlconv.converters.checkpoint.mcore_side import McoreSide, open_mcore_side
from vlconv.converters.conversion.readers import Weights, hf_reader, mcore_reader
from vlconv.converters.errors import ChangedError, CorruptError
from vlconv.converters.formats.chunks import ChunkReader, Extent, dense
from vlconv.converters.formats.seen_files import SeenFiles
from vlconv.converters.models.shared.hf_dialects import Dialect
from vlconv.converters.options import McoreSource
from vlconv.converters.ranks.accounts import accounts
from vlconv.converters.tensors.cast import Cast
from vlconv.converters.tensors.counting import Rounded
from vlconv.converters.tensors.nonfinite import Count, Specials
from vlconv.converters.tensors.offset import Offset
from vlconv.converters.tensors.spec import Box, TensorSpec


def elsewhere(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "hf", shards=2)
    hf2mcore(work / "hf", work / "torch_dist")
    legacy = Hf2McoreOptions(format="torch", tensor_model_parallel_size=2, pipeline_model_parallel_size=2)
    hf2mcore(work / "hf", work / "torch", legacy)
    return work


def mcore(models: Path, form: str) -> McoreSide:
    return open_mcore_side(models / form, McoreSource())


def written(models: Path, dtype: str | None) -> Any:
    side = open_hf_side(models / "hf")
    naming = mcore(models, "torch_dist").naming
    return mcore_reader(Weights(side.reader, side.config, side.hf_config), naming, dtype)


def as_hf(models: Path, form: str, dtype: str | None = None) -> Any:
    side = mcore(models, form)
    return hf_reader(side, side.to_hf().reader, Dialect(), dtype)


READERS: dict[str, Callable[[Path], Any]] = {
    "chunks of torch_dist": lambda models: mcore(models, "torch_dist").chunks,
    "chunks of torch": lambda models: mcore(models, "torch").chunks,
    "chunks of safetensors": lambda models: open_hf_side(models / "hf").chunks,
    "a checkpoint under its names": lambda models: mcore(models, "torch").reader,
    "mcore2hf": lambda models: as_hf(models, "torch_dist"),
    "mcore2hf, legacy": lambda models: as_hf(models, "torch"),
    "mcore2hf, cast": lambda models: as_hf(models, "torch_dist", "float32"),
    "hf2mcore": lambda models: written(models, None),
    "hf2mcore, cast": lambda models: written(models, "float16"),
    "side by side": lambda models: Union(
        without(open_hf_side(models / "hf").reader, {"lm_head.weight"}),
        Cast(Memory({"lm_head.weight": torch.ones(3)}), "bfloat16"),
    ),
}


@pytest.mark.parametrize("kind", READERS)
def test_it_reads_the_same_there(models: Path, kind: str) -> None:
    reader = READERS[kind](models)
    for boxes in (reader.specs, list(reader.specs)[:1]):  # as it was made, and when it has been read from
        there = elsewhere(reader)
        assert there.specs == reader.specs
        assert all(np.array_equal(a, b) for a, b in zip(*(bits(r, boxes) for r in (there, reader)), strict=True))
        there.finish()


@pytest.mark.parametrize("kind", READERS)
def test_what_counts_below_it_is_found(models: Path, kind: str) -> None:
    """The one reader of files, wherever it is, and steps that compute."""
    reader = READERS[kind](models)
    found = accounts(reader, reader)
    assert [type(one) for one in found].count(ChunkReader) == 1
    assert [type(one) for one in found].count(Offset) == ("2" in kind)
    assert [type(one) for one in accounts(elsewhere(reader))] == [type(one) for one in found]


def bits(reader: Any, names: Any) -> list[Any]:
    found = all_bits(reader)
    return [found[name] for name in names]


DATA = bytes(range(250)) * 20


class Source:
    """Five items of 1000 bytes in a file, the third without a checksum."""

    def __init__(self, path: Path) -> None:
        path.write_bytes(DATA)
        self.path = path
        self.located: list[int] = []

    def __call__(self, item: int) -> Extent:
        self.located.append(item)
        crc = 0 if item == 2 else zlib.crc32(DATA[1000 * item : 1000 * item + 1000])
        return Extent(str(self.path), 1000 * item, 1000, crc)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "data")


@pytest.fixture
def reader(source: Source) -> ChunkReader:
    specs = {name: TensorSpec(name, (1000,), "uint8") for name in "abcde"}
    return ChunkReader(specs, {name: [dense(spec, i)] for i, (name, spec) in enumerate(specs.items())}, source)


def read(reader: ChunkReader, name: str, first: int, last: int) -> None:
    out = np.zeros(last - first, np.uint8)
    reader.read_into(Box(name, (first,), (last - first,)), out)


class TestWhatWasReadThere:
    def parts(self, reader: ChunkReader) -> None:
        """Items read by two processes, one by one and half by half, and some by this one."""
        copies = [elsewhere(reader) for _ in range(2)]
        read(reader, "a", 0, 500)
        read(copies[0], "a", 500, 1000)
        read(copies[0], "b", 0, 300)
        read(copies[1], "b", 300, 1000)
        read(copies[1], "c", 0, 1000)
        for there in copies:
            reader.take_over(elsewhere(there.hand_over()))
        read(copies[0], "d", 0, 1000)
        reader.take_over(elsewhere(copies[0].hand_over()))

    def test_it_is_checked_here_without_reading_it_again(
        self, reader: ChunkReader, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.parts(reader)
        monkeypatch.setattr(os, "preadv", None)
        reader.finish()
        assert (reader.checked, reader.unsummed) == (3, 1)
        assert source.located == [0]  # where the others lie was told along

    def test_damage_is_found(self, reader: ChunkReader, source: Source) -> None:
        damaged = bytearray(DATA)
        damaged[1200] ^= 1
        source.path.write_bytes(damaged)
        self.parts(reader)
        with pytest.raises(CorruptError, match="bytes 1000 to 2000 are damaged"):
            reader.finish()

    def test_it_is_told_once(self, reader: ChunkReader) -> None:
        there = elsewhere(reader)
        read(there, "a", 0, 10)
        assert [(item, runs) for item, _, runs in there.hand_over()] == [(0, [(0, 10, zlib.crc32(DATA[:10]))])]
        assert there.hand_over() == []

    def test_what_this_one_read_is_not_told_there(self, reader: ChunkReader) -> None:
        read(reader, "a", 0, 1000)
        read(reader, "c", 0, 1000)
        assert elsewhere(reader).hand_over() == []

    def test_it_is_noted_for_a_run_that_goes_on(self, reader: ChunkReader) -> None:
        self.parts(reader)
        noted = reader.read_since()
        assert noted == {i: [] if i == 2 else [(0, 1000, zlib.crc32(DATA[1000 * i :][:1000]))] for i in range(4)}


class TestSeenFiles:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        (path := tmp_path / "data").write_bytes(b"1234")
        return path

    @pytest.fixture
    def seen(self, path: Path) -> SeenFiles:
        """As they came from another host: there the file system has another number."""
        seen, found = SeenFiles(), list(path.stat())
        found[2] += 1
        seen.note(str(path), os.stat_result(found, {"st_mtime_ns": path.stat().st_mtime_ns}))
        with pytest.raises(ChangedError):
            seen.check()
        return elsewhere(seen)  # type: ignore[no-any-return]

    def test_another_number_of_the_file_system_is_no_change(self, seen: SeenFiles, path: Path) -> None:
        seen.note(str(path), path.stat())
        seen.check()

    def test_a_change_is_one(self, seen: SeenFiles, path: Path) -> None:
        path.write_bytes(b"12345")
        with pytest.raises(ChangedError, match="has 5 bytes"):
            seen.note(str(path), path.stat())

    def test_another_file_is_one(self, seen: SeenFiles, path: Path) -> None:
        found = path.stat()
        (other := path.with_name("other")).write_bytes(b"1234")
        os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
        other.rename(path)
        with pytest.raises(ChangedError, match="replaced"):
            seen.check()


def test_special_numbers_go_along() -> None:
    specials = Specials()
    specials.add("a", Count(1, 2))
    there = elsewhere(specials)
    there.add("a", Count(1))
    assert (specials.found, there.found) == ({"a": Count(1, 2)}, {"a": Count(2, 2)})


def test_what_was_rounded_there_is_counted_here() -> None:
    numbers = torch.tensor([0.1, 1.0, 2.0, 1e-9])  # one added to the first and the last is rounded
    step = Offset(Memory({"a": numbers}), ["a"], 1.0)
    copies = [elsewhere(step) for _ in range(2)]
    for there, first in zip(copies, (0, 2), strict=True):
        there.read_into(Box("a", (first,), (2,)), np.zeros(2, np.uint32))
    for there in copies:
        step.take_over(there.hand_over())
        assert there.hand_over() == {}
    step._reader = None  # type: ignore[assignment]  # nothing is read for it
    assert step.counted() == {"a": Rounded(4, 2)}
