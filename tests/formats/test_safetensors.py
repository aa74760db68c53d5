"""safetensors: planned so that safetensors itself opens it, read so that nothing damaged or doubled passes."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch
from memory import Memory, all_bits, bits
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import write_weights

from vlconv.converters import Silent
from vlconv.converters.errors import CorruptError, NotACheckpoint, SourceError, UnsupportedError
from vlconv.converters.formats.safetensors import DTYPES, INDEX, SINGLE, holds, open_hf, plan_hf, read_header
from vlconv.converters.output.writing.writer import write_files
from vlconv.converters.tensors.spec import TensorSpec
from vlconv.converters.workers import Workers


def tensors(**shapes):
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}


def written(directory, given, limit=10**9):
    reader = Memory(given)
    files = plan_hf(reader.specs, limit)
    directory.mkdir(exist_ok=True)
    write_files(reader, files, directory, Workers(2), Silent())
    return files


def header(path):
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    return json.loads(raw[8 : 8 + length]), length, raw[8 : 8 + length]


def same(found, wanted):
    return found.keys() == wanted.keys() and all(
        found[n].dtype == wanted[n].dtype and np.array_equal(bits(found[n]), bits(wanted[n])) for n in wanted
    )


class TestPlan:
    def test_one_file_and_no_index(self, tmp_path):
        given = tensors(b=(3, 4), a=(5,), c=(2, 2, 2))
        assert [f.name for f in written(tmp_path, given)] == [SINGLE]
        assert same(load_file(tmp_path / SINGLE), given)
        with safe_open(tmp_path / SINGLE, "pt") as file:
            assert file.metadata() == {"format": "pt"} and sorted(file.keys()) == ["a", "b", "c"]

    def test_the_header(self, tmp_path):
        written(tmp_path, tensors(b=(3, 4), a=(5,)))
        entries, length, raw = header(tmp_path / SINGLE)
        assert (
            length % 8 == 0 and raw.startswith(b'{"__metadata__":{"format":"pt"}') and raw.rstrip(b" ").endswith(b"}")
        )
        assert entries["a"] == {"dtype": "BF16", "shape": [5], "data_offsets": [0, 10]}
        assert entries["b"] == {"dtype": "BF16", "shape": [3, 4], "data_offsets": [10, 34]}

    def test_shards_follow_the_given_order_and_keep_the_limit(self, tmp_path):
        given = tensors(d=(10,), a=(10,), big=(100,), c=(5,), b=(5,), e=(5,), f=(5,))
        files = written(tmp_path, given, 40)
        assert [f.name for f in files] == [*(f"model-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)), INDEX]
        found = [load_file(tmp_path / f.name) for f in files[:-1]]
        assert [sorted(f) for f in found] == [["a", "d"], ["big"], ["b", "c", "e", "f"]]
        assert [sum(t.numel() * 2 for t in f.values()) for f in found] == [40, 200, 40]

    def test_the_index(self, tmp_path):
        given = tensors(d=(10,), a=(10,), c=(15,))
        written(tmp_path, given, 40)
        text = (tmp_path / INDEX).read_text()
        index = json.loads(text)
        assert index["metadata"] == {"total_parameters": 35, "total_size": 70}
        first, second = (f"model-{i:05d}-of-00002.safetensors" for i in (1, 2))
        assert list(index["weight_map"].items()) == [("a", first), ("c", second), ("d", first)]
        assert text == json.dumps(index, indent=2, sort_keys=True) + "\n"

    def test_several_dtypes_wider_first_so_that_all_are_aligned(self, tmp_path):
        given = tensors(a=(3,), b=(1,)) | {
            "c": torch.randn(3),
            "d": torch.randn(3, dtype=torch.float64),
            "e": torch.randn(1, dtype=torch.float16),
        }
        written(tmp_path, given)
        assert same(load_file(tmp_path / SINGLE), given)
        entries, length, _ = header(tmp_path / SINGLE)
        del entries["__metadata__"]
        assert list(entries) == ["d", "c", "a", "b", "e"]
        widths = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2}
        assert all((8 + length + e["data_offsets"][0]) % widths[e["dtype"]] == 0 for e in entries.values())

    @pytest.mark.parametrize("limit", [1, 24, 100, 10**6])
    def test_sizes_are_known_before(self, tmp_path, limit):
        given = tensors(**{f"layer.{i}.weight": (i + 1, 3) for i in range(9)})
        for file in written(tmp_path, given, limit):
            assert (tmp_path / file.name).stat().st_size == file.size

    @pytest.mark.parametrize("limit", [1, 24, 100, 10**6])
    def test_what_is_written_is_read(self, tmp_path, limit):
        given = tensors(**{f"layer.{i}.weight": (i + 1, 3) for i in range(9)}) | {"x": torch.randn(4)}
        written(tmp_path, given, limit)
        reader = open_hf(tmp_path)
        reader.check_tiling()
        assert {n: s.dtype for n, s in reader.specs.items()} == dict.fromkeys(given, "bfloat16") | {"x": "float32"}
        assert (
            all(np.array_equal(found, bits(given[n])) for n, found in all_bits(reader).items())
            and reader.specs.keys() == given.keys()
        )

    def test_every_dtype_that_is_written(self):
        for code, dtype in DTYPES.items():
            (file,) = plan_hf({"a": TensorSpec("a", (2,), dtype)}, 10**9)
            assert json.loads(file.literals[0][1][8:])["a"]["dtype"] == code


class TestRead:
    @pytest.mark.parametrize("shards", [1, 3])
    def test_what_safetensors_wrote(self, tmp_path, shards):
        given = tensors(**{f"t{i}": (i + 1, 2) for i in range(9)}) | {"s": torch.tensor(3.0)}
        write_weights(tmp_path, given, shards)
        assert holds(tmp_path)
        reader = open_hf(tmp_path)
        assert {n: (s.shape, s.dtype) for n, s in reader.specs.items()} == {
            n: (tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in given.items()
        }
        found = all_bits(
            type(
                "Part", (), {"specs": {n: s for n, s in reader.specs.items() if s.shape}, "read_into": reader.read_into}
            )
        )
        assert all(np.array_equal(found[n], bits(given[n])) for n in found) and len(found) == 9

    def test_the_index_decides_where_both_are_there(self, tmp_path):
        write_weights(tmp_path, tensors(a=(2,), b=(3,)), 2)
        save_file(tensors(z=(4,)), tmp_path / SINGLE)
        assert open_hf(tmp_path).specs.keys() == {"a", "b"}

    def test_links_as_in_a_cache(self, tmp_path):
        given = tensors(a=(2,))
        (tmp_path / "blobs").mkdir()
        save_file(given, tmp_path / "blobs" / "x")
        (tmp_path / SINGLE).symlink_to(tmp_path / "blobs" / "x")
        assert np.array_equal(all_bits(open_hf(tmp_path))["a"], bits(given["a"]))

    def test_nothing_there(self, tmp_path):
        assert not holds(tmp_path)
        with pytest.raises(NotACheckpoint, match=f"neither {INDEX} nor {SINGLE}"):
            open_hf(tmp_path)


def raw_file(path, entries, data=bytes(16), text=None, length=None):
    """A safetensors file with this header, whatever it says."""
    text = (json.dumps(entries) if text is None else text).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def entry(start, stop, shape=None, dtype="F32"):
    return {"dtype": dtype, "shape": shape or [(stop - start) // 4], "data_offsets": [start, stop]}


DAMAGED = {
    "overlap": ({"a": entry(0, 8), "b": entry(4, 16)}, "the tensors overlap at [4]"),
    "gap": ({"a": entry(0, 4), "b": entry(8, 16)}, "the tensors leave a gap: 12 of 16"),
    "bytes behind": ({"a": entry(0, 8)}, "the tensors leave a gap: 8 of 16"),
    "beyond the end": ({"a": entry(0, 20)}, "the tensors reach outside"),
    "twice the same bytes": ({"a": entry(0, 16), "b": entry(0, 16)}, "the tensors overlap"),
    "nothing": ({}, "the tensors leave a gap: 0 of 16"),
    "backwards": (
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [16, 0]}},
        "a has -16 bytes where its shape needs 16",
    ),
    "another shape": ({"a": entry(0, 16, [5])}, "a has 16 bytes where its shape needs 20"),
    "huge shape": ({"a": entry(0, 16, [2**62, 2**62])}, "a has 16 bytes where its shape needs"),
    "negative shape": ({"a": entry(0, 16, [-2, -2])}, "the header entry of a is malformed"),
    "negative offset": ({"a": entry(-4, 12, [4])}, "the header entry of a is malformed"),
    "a float in a shape": ({"a": entry(0, 16, [4.0])}, "the header entry of a is malformed"),
    "true in a shape": ({"a": entry(0, 16, [True, 4])}, "the header entry of a is malformed"),
    "no dtype": ({"a": {"shape": [4], "data_offsets": [0, 16]}}, "the header entry of a is malformed"),
    "three offsets": (
        {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 8, 16]}},
        "the header entry of a is malformed",
    ),
    "no object": ({"a": [0, 16]}, "the header entry of a is malformed"),
    "a list as dtype": (
        {"a": {"dtype": ["F32"], "shape": [4], "data_offsets": [0, 16]}},
        "the header entry of a is malformed",
    ),
    "very many axes": ({"a": entry(0, 16, [2**62] * 200_000)}, "the header entry of a is malformed"),
    "a size beyond 64 bits": ({"a": entry(0, 16, [2**64, 0])}, "the header entry of a is malformed"),
}


class TestDamage:
    @pytest.mark.parametrize("kind", DAMAGED)
    def test_a_header_that_does_not_fit(self, tmp_path, kind):
        entries, says = DAMAGED[kind]
        path = raw_file(tmp_path / SINGLE, entries)
        with pytest.raises(SourceError) as caught:
            read_header(path)
        assert caught.value.what.startswith(f"{path}: ") and says in caught.value.what

    def test_the_helper_writes_what_is_right(self, tmp_path):
        path = raw_file(tmp_path / SINGLE, {"b": entry(0, 4), "a": entry(4, 16)})
        assert [spec for spec, _ in read_header(path)] == [
            TensorSpec("b", (1,), "float32"),
            TensorSpec("a", (3,), "float32"),
        ]

    def test_a_name_twice(self, tmp_path):
        text = '{"a":%s,"a":%s}' % (json.dumps(entry(0, 16)), json.dumps(entry(0, 16)))  # noqa: UP031
        path = raw_file(tmp_path / SINGLE, None, text=text)
        with pytest.raises(CorruptError, match="'a' is there twice"):
            read_header(path)

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("{", "not valid JSON"),
            ("[]", "no JSON object"),
            ("\x00", "not valid JSON"),
            ('{"a":NaN}', "NaN"),
            ("[" * 100_000, "not valid JSON"),
        ],
    )
    def test_no_json(self, tmp_path, text, says):
        with pytest.raises(CorruptError, match=says) as caught:
            read_header(raw_file(tmp_path / SINGLE, None, text=text))
        assert len(caught.value.what) < 600

    @pytest.mark.parametrize("length", [17 + 48, 2**40, 2**63])
    def test_a_length_beyond_the_file(self, tmp_path, length):
        with pytest.raises(CorruptError, match="truncated, or no safetensors file"):
            read_header(raw_file(tmp_path / SINGLE, {"a": entry(0, 16)}, length=length + 100))

    @pytest.mark.parametrize("size", [0, 7, 8, 30, 60])
    def test_truncated(self, tmp_path, size):
        save_file(tensors(a=(8,)), tmp_path / SINGLE)
        with (tmp_path / SINGLE).open("r+b") as file:
            file.truncate(size)
        with pytest.raises(CorruptError) as caught:
            read_header(tmp_path / SINGLE)
        assert caught.value.what.startswith(str(tmp_path / SINGLE))

    def test_truncated_by_one_byte(self, tmp_path):
        save_file(tensors(a=(8,)), tmp_path / SINGLE)
        with (tmp_path / SINGLE).open("r+b") as file:
            file.truncate((tmp_path / SINGLE).stat().st_size - 1)
        with pytest.raises(CorruptError, match="the tensors reach outside"):
            open_hf(tmp_path)

    def test_a_dtype_that_is_not_read(self, tmp_path):
        with pytest.raises(UnsupportedError, match="a has dtype F4"):
            read_header(raw_file(tmp_path / SINGLE, {"a": entry(0, 16, dtype="F4")}))

    def test_no_regular_file(self, tmp_path):
        os.mkfifo(tmp_path / "fifo")
        (tmp_path / "folder").mkdir()
        for name in ("fifo", "folder", "gone"):
            with pytest.raises(CorruptError, match="is missing" if name == "gone" else "not a regular file"):
                read_header(tmp_path / name)

    def test_names_are_escaped(self, tmp_path):
        with pytest.raises(CorruptError) as caught:
            read_header(raw_file(tmp_path / SINGLE, {"\x1b[31m": entry(0, 12, [4])}))
        assert "\x1b" not in caught.value.what


class TestIndex:
    @pytest.fixture
    def model(self, tmp_path):
        write_weights(tmp_path, tensors(a=(2,), b=(3,), c=(4,)), 3)
        return tmp_path

    def changed(self, model, change):
        index = json.loads((model / INDEX).read_text())
        change(index["weight_map"])
        (model / INDEX).write_text(json.dumps(index))
        with pytest.raises(SourceError) as caught:
            open_hf(model)
        return caught.value.what

    def test_a_shard_missing(self, model):
        (model / "model-00002-of-00003.safetensors").unlink()
        with pytest.raises(
            CorruptError,
            match=r"model-00002-of-00003.safetensors: missing, though model.safetensors.index.json names it",
        ):
            open_hf(model)

    def test_a_tensor_it_places_elsewhere(self, model):
        said = self.changed(model, lambda m: m.update(a=m["b"]))
        assert "holds a, which model.safetensors.index.json does not place there" in said or "lacks a" in said

    def test_a_tensor_that_is_nowhere(self, model):
        assert "lacks d, which model.safetensors.index.json places there" in self.changed(
            model, lambda m: m.update(d=m["b"])
        )

    def test_a_tensor_it_does_not_name(self, model):
        save_file(tensors(c=(4,), more=(1,)), model / "model-00003-of-00003.safetensors")
        with pytest.raises(
            CorruptError, match=r"holds more, which model\.safetensors\.index\.json does not place there"
        ):
            open_hf(model)

    @pytest.mark.parametrize("name", ["../evil.safetensors", "/etc/passwd", "a/b.safetensors", "..", ".", ""])
    def test_a_file_outside(self, model, name):
        (model.parent / "evil.safetensors").write_bytes(b"")
        said = self.changed(model, lambda m: m.update(a=name))
        assert "names a file outside the directory" in said

    @pytest.mark.parametrize(
        "content",
        [
            "{}",
            '{"weight_map": []}',
            '{"weight_map": {}}',
            '{"weight_map": {"a": 1}}',
            '{"weight_map": {"a": null}}',
            "[]",
            "",
            '{"weight_map": {"a": "x", "a": "y"}}',
        ],
    )
    def test_no_map(self, model, content):
        (model / INDEX).write_text(content)
        with pytest.raises(CorruptError) as caught:
            open_hf(model)
        assert str(model / INDEX) in caught.value.what

    def test_an_index_that_is_a_folder_is_none(self, model):
        (model / INDEX).unlink()
        (model / INDEX).mkdir()
        with pytest.raises(NotACheckpoint):
            open_hf(model)
