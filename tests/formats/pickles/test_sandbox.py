"""Pickles read in the child process: the tables of real checkpoints, and what hostile ones come to."""

from __future__ import annotations

import argparse
import contextlib
import enum
import io
import os
import pickle
import resource
import shutil
import struct
import subprocess
import sys
import time
import types
import warnings
import zipfile

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint import metadata as records
from torch.distributed.checkpoint.filesystem import _StorageInfo

from vlconv.converters.errors import CorruptError, UnsupportedError
from vlconv.converters.formats.chunks import Chunk
from vlconv.converters.formats.dcp.metadata import check_files, read_dcp_metadata
from vlconv.converters.formats.pickles import sandbox
from vlconv.converters.formats.pickles.closed_unpickler import TensorRef
from vlconv.converters.formats.pickles.sandbox import Instance, plain_dict
from vlconv.converters.formats.zips.items import item_parts
from vlconv.converters.formats.zips.read import find_tensor
from vlconv.converters.formats.zips.torch_save import read_torch_save

PROPERTIES = records.TensorProperties(torch.bfloat16)


class Backend(enum.Enum):
    FLASH = 2


class Reduced:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def described(shape, chunks, dtype=torch.bfloat16):
    listed = [records.ChunkStorageMetadata(torch.Size(o), torch.Size(n)) for o, n in chunks]
    return records.TensorStorageMetadata(records.TensorProperties(dtype), torch.Size(shape), listed)


def written(directory, value, protocol=4):
    directory.mkdir(exist_ok=True)
    (directory / ".metadata").write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return directory


@pytest.fixture(scope="module")
def state():
    return {
        "a.weight": torch.arange(12, dtype=torch.bfloat16).reshape(3, 4),
        "scalar": torch.tensor(2.5),
        "empty": torch.empty(0, 3),
        "raw": io.BytesIO(b"xyz"),
        "iteration": 7,
    }


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, state):
    directory = tmp_path_factory.mktemp("dcp")
    with warnings.catch_warnings(action="ignore"):  # that it saves without a process group
        dcp.save(dict(state), checkpoint_id=directory, no_dist=True)
    return directory


def test_a_real_checkpoint(checkpoint, state):
    m = read_dcp_metadata(checkpoint)
    assert {t.name: (t.dtype, t.shape) for t in m.tensors} == {
        "a.weight": ("bfloat16", (3, 4)),
        "scalar": ("float32", ()),
        "empty": ("float32", (0, 3)),
    }
    assert {e.name for e in m.byte_entries} == {"raw", "iteration"}
    check_files(m, checkpoint, range(len(m.tensors)))
    for index, tensor in enumerate(m.tensors):
        if tensor.name == "empty":  # there is nothing to read
            assert not m.chunks(index)
            continue
        ((offsets, lengths, item, *_),) = m.chunks(index)
        assert (offsets, lengths) == ((0,) * len(tensor.shape), tensor.shape)
        name, offset, length = m.place(item)
        with (checkpoint / name).open("rb") as file:
            found = find_tensor(file.fileno(), offset, length)
            data = os.pread(file.fileno(), found.nbytes, found.data_offset)
        assert (found.dtype, found.shape) == (tensor.dtype, tensor.shape)
        want = state[tensor.name]
        assert data == want.reshape(-1).view(torch.uint8).numpy().tobytes()


def test_an_object_among_the_items(checkpoint):
    m = read_dcp_metadata(checkpoint)
    entry = next(e for e in m.byte_entries if e.name == "iteration")
    assert read_torch_save(checkpoint / m.files[entry.file], entry.offset, entry.length).tree == 7


def test_chunks_without_a_place_are_absent(tmp_path):
    shards = [((0, 0), (2, 4)), ((2, 0), (1, 4)), ((3, 0), (5, 4))]
    tensors = {
        "x": described((8, 4), shards),
        "y": described((2,), [((0,), (2,))]),
        "z": described((2,), [((0,), (2,))]),
    }
    storage = {
        records.MetadataIndex("x", torch.Size([3, 0])): _StorageInfo("b", 10, 20),
        records.MetadataIndex("x", torch.Size([0, 0]), 0): _StorageInfo("a", 0, 5),
        records.MetadataIndex("x", torch.Size([7, 7]), 2): _StorageInfo("a", 0, 5),
        records.MetadataIndex("y"): _StorageInfo("a", 5, 6),
        records.MetadataIndex("unknown"): _StorageInfo("a", 5, 6),
    }
    m = read_dcp_metadata(written(tmp_path, records.Metadata(tensors, storage_data=storage)))
    assert list(m.chunks(0)) == [Chunk((0, 0), (2, 4), 0), Chunk((3, 0), (5, 4), 1)]
    assert [m.place(i) for i in range(3)] == [("a", 0, 5), ("b", 10, 20), ("a", 5, 6)]
    assert [len(m.chunks(i)) for i in range(3)] == [2, 1, 0]
    assert list(m.item_tensor) == [0, 0, 1]


def test_a_place_without_an_offset_is_that_of_a_single_chunk(tmp_path):
    halves = [((0,), (2,)), ((2,), (2,))]
    tensors = {"x": described((4,), halves), "y": described((2,), halves[:1])}
    storage = {records.MetadataIndex(name): _StorageInfo("a", at, 1) for at, name in enumerate("xy")}
    m = read_dcp_metadata(written(tmp_path, records.Metadata(tensors, storage_data=storage)))
    assert [list(m.chunks(0)), list(m.chunks(1))] == [[], [Chunk((0,), (2,), 0)]]


def test_what_megatron_adds_is_ignored(tmp_path):
    value = records.Metadata({"x": described((2,), [((0,), (2,))], torch.complex32)}, storage_data={})
    plan = types.SimpleNamespace(items=[Backend.FLASH] * 50, planner_data={"x": PROPERTIES})
    value.all_local_plans, value.mcore_data, value.planner_data = (
        [plan, plan],
        {"x": {"nd": (1, 2)}},
        argparse.Namespace(a=plan),
    )
    m = read_dcp_metadata(written(tmp_path, value))
    assert (m.tensors, list(m.chunks(0))) == ([("x", "complex32", (2,))], [])


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol(protocol, tmp_path):
    value = records.Metadata(
        {"x": described((2,), [((0,), (2,))])},
        storage_data={records.MetadataIndex("x", torch.Size([0])): _StorageInfo("f", 1, 2)},
    )
    assert read_dcp_metadata(written(tmp_path, value, protocol)).place(0) == ("f", 1, 2)


def with_place(path="f", offset=0, length=2, **more):
    index = records.MetadataIndex("x", torch.Size([0]))
    info = _StorageInfo(path, offset, length)
    vars(info).update(more)
    return records.Metadata({"x": described((2,), [((0,), (2,))])}, storage_data={index: info})


@pytest.mark.parametrize("name", ["../f", "/etc/passwd", "a/b", "..", ".", "", "a\0b", "..\\f"])
def test_paths_that_leave_the_directory(name, tmp_path):
    with pytest.raises(CorruptError, match="not a plain file name"):
        read_dcp_metadata(written(tmp_path, with_place(name)))


def twice():
    value = with_place()
    same = records.MetadataIndex("x", torch.Size([0]))
    object.__setattr__(same, "offset", torch.Size([0, 0]))
    value.storage_data[same] = _StorageInfo("f", 0, 2)
    return pickle.dumps(value, 3).replace(
        b"K\x00K\x00\x86", b"K\x00\x85"
    )  # protocol 3 has no frames whose lengths would tell


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (with_place(offset=-1), "no number"),
        (with_place(length=1 << 70), "no number"),
        (with_place(length=2.0), "no number"),
        (with_place(length=True), "no number"),
        (with_place(path=5), "no text"),
        (with_place(transform_descriptors=["zstd"]), "transformed"),
        (records.Metadata({"x": 5}, storage_data={}), "describes x in an unknown way"),
        (records.Metadata({5: described((2,), [])}, storage_data={}), "no text"),
        (records.Metadata({"x": described((2,), [((0, 0), (2, 1))])}, storage_data={}), "another number of axes"),
        (records.Metadata({"x": described((2,), [((0,), (2, 1))])}, storage_data={}), "another number of axes"),
        (records.Metadata({"x": described((1 << 62,), [])}, storage_data={}), "no number"),
        (
            records.Metadata({"x": described((2,), [((0,), (1 << 62,))])}, storage_data=with_place().storage_data),
            "no number",
        ),
        (
            records.Metadata({}, storage_data={records.MetadataIndex("x"): ("f", 0, 2)}),
            "names a storage place in an unknown way",
        ),
        (
            records.Metadata({"x": described((2,), [((0,), (2,))])}, storage_data={"x": _StorageInfo("f", 0, 1)}),
            "unknown keys",
        ),
        (
            records.Metadata({"x": records.TensorStorageMetadata(PROPERTIES, torch.Size([2]), [5])}, storage_data={}),
            "a chunk in an unknown way",
        ),
        (
            records.Metadata({"x": records.TensorStorageMetadata(PROPERTIES, (2, None), [])}, storage_data={}),
            "not made of integers",
        ),
        (
            records.Metadata({"x": records.TensorStorageMetadata(PROPERTIES, (-2,), [])}, storage_data={}),
            "not made of integers",
        ),
        (records.Metadata({}, storage_data=None), "lacks its tables"),
        (twice(), "two places for one chunk of x"),
        ({"x": 1}, "not the metadata"),
        (b"", "not a readable pickle"),
        (pickle.dumps(with_place())[:-30], "not a readable pickle"),
        (b"\x80\x04X\xff\xff\xff\x7fabc", "not a readable pickle"),
        (
            pickle.dumps(Reduced(os.system, ("true",))),
            "refers to posix.system, which has no place in a checkpoint; nothing in it was run",
        ),
    ],
)
def test_tables_that_are_none(value, text, tmp_path):
    with pytest.raises(CorruptError, match=r"^c/\.metadata .*" + text):
        read_dcp_metadata(written(tmp_path / "c", value))


def test_names_are_escaped(tmp_path):
    with pytest.raises(CorruptError) as caught:
        read_dcp_metadata(written(tmp_path, records.Metadata({"\x1b[2J": 5}, storage_data={})))
    assert "\x1b" not in str(caught.value) and "\\x1b[2J" in str(caught.value)


BOMBS = {
    "memo": b"Nr\xff\xff\xff\x7f.",
    "nested tuples": b")" + b"\x85" * 1_000_000 + b".",
    "nested lists": b"]" * 500_000 + b"a" * 499_999 + b".",
    "deep hash": b"})" + b"\x85" * 400_000 + b"Ns.",
    "bytearray": b"\x96\xff\xff\xff\xff\x0f\x00\x00\x00.",
    "doubling": b"](lp0\n0" + b"".join(b"(" + b"g%d\n" % i * 10 + b"lp%d\n0" % (i + 1) for i in range(12)) + b"g12\n.",
}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("place", [".metadata", "common.pt"])
def test_bombs_take_only_the_child(kind, place, tmp_path):
    begun, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CorruptError) as caught:
        if place == ".metadata":
            read_dcp_metadata(written(tmp_path, BOMBS[kind]))
        else:
            read_torch_save(archived(tmp_path, BOMBS[kind]))
    assert str(caught.value).startswith(f"{tmp_path.name}/{place} ")
    assert time.monotonic() - begun < 15
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


def archived(directory, pickled):
    """A torch.save file with that data.pkl."""
    path = directory / "common.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
    return path


def test_endless_work_ends(tmp_path, monkeypatch):
    # A stand-in that takes all the time it can get: the limit, not patience, ends it.
    folder = shutil.copytree(sandbox.CHILD[-1], tmp_path / "pickles")
    child = folder / "sandbox_child.py"
    text = child.read_text()
    child.write_text(
        text.replace("seconds = 10", "seconds = 1").replace("value = pickles.load(data)", "while True: pass")
    )
    monkeypatch.setattr(sandbox, "CHILD", (*sandbox.CHILD[:-1], str(folder)))
    with pytest.raises(CorruptError, match="more time or memory than its size explains"):
        read_dcp_metadata(written(tmp_path, b"N."))


@pytest.mark.parametrize(
    "output",
    [
        "",
        "vlconv01",
        "vlconv01" + "\0" * 8,
        "vlconv01" + "\x02" + "\0" * 7 + "{}",
        "x" * 100,
        "vlconv01\x0f" + "\0" * 7 + '{"columns":{"":1}}',
        "vlconv01\x1c" + "\0" * 7 + '{"columns":{"a":-1,"b": 1 }}',  # whose sum is right
        "y" * (17 << 20),
    ],
)
def test_an_answer_that_is_none(output, tmp_path, monkeypatch):
    (tmp_path / "out").write_text(output)
    monkeypatch.setattr(
        sandbox, "CHILD", ("-c", f"import sys; sys.stdout.write(open({str(tmp_path / 'out')!r}).read())")
    )
    with pytest.raises(CorruptError, match=r"no proper answer|far more than its size"):
        read_dcp_metadata(written(tmp_path, b"N."))


@pytest.mark.parametrize("what", ["missing", "folder", "fifo"])
def test_no_file(what, tmp_path):
    path = tmp_path / ".metadata"
    if what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    with pytest.raises(CorruptError, match=r"/\.metadata is (missing|not a regular file)"):
        read_dcp_metadata(tmp_path)


def test_a_file_too_large_for_metadata(tmp_path):
    with (tmp_path / ".metadata").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UnsupportedError, match="at most"):
        read_dcp_metadata(tmp_path)


def test_files_are_checked(tmp_path):
    directory = written(tmp_path, with_place("f", 10, 20))
    m = read_dcp_metadata(directory)
    check_files(m, directory, [])
    with pytest.raises(CorruptError, match=r"f is missing: 1 pieces of the model"):
        check_files(m, directory, [0])
    (directory / "f").write_bytes(bytes(29))
    with pytest.raises(CorruptError, match=r"f is cut short: 29 bytes, where \.metadata says at least 30"):
        check_files(m, directory, [0])
    (directory / "real").write_bytes(bytes(30))
    (directory / "f").unlink()
    (directory / "f").symlink_to("real")
    check_files(m, directory, [0])
    (directory / "f").unlink()
    os.mkfifo(directory / "f")
    with pytest.raises(CorruptError, match="not a regular file"):
        check_files(m, directory, [0])


def test_common_pt(tmp_path):
    args = argparse.Namespace(
        a=1,
        b=[1, (2, None)],
        dtype=torch.bfloat16,
        backend=Backend.FLASH,
        raw=b"\xff",
        inf=float("inf"),
        w=torch.ones(2),
        f=len,
    )
    args.itself = args
    value = {
        "args": args,
        "model": {"w": torch.arange(6).reshape(2, 3)[:, 1:]},
        "shared": [args.b, args.b],
        5: {("k", 1): True},
    }
    torch.save(value, tmp_path / "common.pt")
    saved = read_torch_save(tmp_path / "common.pt")
    assert isinstance(saved.tree["args"], Instance) and saved.tree["args"].class_name == "argparse.Namespace"
    assert plain_dict(saved.tree["args"]) == {
        "a": 1, "b": [1, [2, None]], "dtype": "bfloat16", "backend": 2, "raw": "bytes", "inf": float("inf"),
        "w": "tensor [2]", "f": "builtins.len",
        "itself": "(itself)",
    }  # fmt: skip
    assert saved.tree["shared"] == [[1, (2, None)]] * 2
    assert saved.tree[5] == {("k", 1): True}
    ref = saved.tree["model"]["w"]
    assert ref == TensorRef("1", "int64", 6, 1, (2, 2), (3, 1))
    found = saved.tensor(ref)
    with (tmp_path / "common.pt").open("rb") as file:
        assert struct.unpack("<6q", os.pread(file.fileno(), found.nbytes, found.data_offset)) == (0, 1, 2, 3, 4, 5)
    assert (found.start, found.strides, found.nbytes) == (1, (3, 1), 48)


def test_only_data_pkl_is_read(tmp_path):
    parts = item_parts("bfloat16", (3, 1 << 30))
    with (tmp_path / "model_optim_rng.pt").open("wb") as file:  # sparse: 6 GiB that take no room
        file.write(parts.head(0))
        file.seek(parts.data.nbytes, os.SEEK_CUR)
        file.write(parts.tail(0))
    begun = time.monotonic()
    saved = read_torch_save(tmp_path / "model_optim_rng.pt")
    assert saved.tensor(saved.tree).nbytes == 6 << 30
    assert time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("data", "kind", "text"),
    [
        (pickle.dumps({"a": 1}, 2), UnsupportedError, "before torch 1.6"),
        (b"", CorruptError, "not a torch.save file"),
        (b"PK\x03\x04", CorruptError, "not a torch.save file"),
    ],
)
def test_no_torch_save(data, kind, text, tmp_path):
    (tmp_path / "common.pt").write_bytes(data)
    with pytest.raises(kind, match=r"/common\.pt .*" + text):
        read_torch_save(tmp_path / "common.pt")


def test_slices_outside_the_file(tmp_path):
    torch.save(1, tmp_path / "x")
    for offset, length in ((0, 1 << 40), (-1, 5), (1 << 40, None), (5, -1)):
        with pytest.raises(CorruptError, match="too short"):
            read_torch_save(tmp_path / "x", offset, length)


def test_a_damaged_data_pkl(tmp_path):
    path = tmp_path / "common.pt"
    torch.save({"iteration": 1234}, path)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"iteration", b"iteratioN"))
    with pytest.raises(CorruptError, match="its checksum differs"):
        read_torch_save(path)


def test_nothing_is_run(tmp_path):
    mark = tmp_path / "ran"
    for call in (
        (os.system, (f"touch {mark}",)),
        (subprocess.check_call, (["touch", str(mark)],)),
        (exec, (f"open({str(mark)!r}, 'w')",)),
        (mark.touch, ()),
    ):
        hostile = {"args": argparse.Namespace(a=Reduced(*call))}
        for data in (pickle.dumps(hostile, 2), pickle.dumps(hostile, 5)):
            with contextlib.suppress(CorruptError):
                plain_dict(read_torch_save(archived(tmp_path, data)).tree)
            with pytest.raises(CorruptError):
                read_dcp_metadata(written(tmp_path, data))
    assert not mark.exists()


def test_the_child_imports_nothing_heavy(checkpoint):
    path = checkpoint / ".metadata"
    *isolated, start, folder = sandbox.CHILD
    told = "import os, sys; os._exit = lambda status: print(*sys.modules, file=sys.stderr)\n"
    command = [sys.executable, *isolated, told + start, folder, "dcp", "0", "0", str(path.stat().st_size), "-1"]
    with path.open("rb") as file:
        ran = subprocess.run(command, stdin=file, capture_output=True, check=True)
    loaded = set(ran.stderr.decode().split())
    assert "pickle" in loaded
    assert not loaded & {"torch", "numpy", "vlconv", "subprocess", "socket", "typing", "importlib.util", "base64"}


def test_integers_beyond_any_float_are_records(tmp_path):
    """Of args: of 100 digits at most, so that comparing them to a float cannot overflow."""
    kept = {"a": 2**333 - 1, "b": -(2**333) + 1, "c": float("inf")}
    args = argparse.Namespace(**kept, d=2**333, e=[-(10**400)], f=10**5000)
    torch.save({"args": args}, tmp_path / "x.pt")
    found = plain_dict(read_torch_save(tmp_path / "x.pt").tree["args"])
    assert found == {**kept, "d": "int", "e": ["int"], "f": "int"}
