"""The closed unpickler: what a checkpoint needs arrives, and nothing ever runs."""

from __future__ import annotations

import argparse
import collections
import enum
import functools
import gc
import io
import os
import pathlib
import pickle
import signal
import struct
import zipfile

import pytest
import torch

from vlconv.converters.formats.pickles.closed_unpickler import Inert, Refused, StorageRef, TensorRef, load


class Mode(enum.Enum):
    FAST = 3


class Holder:
    class Inner:
        pass


class Reduced:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def torch_pickle(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return zipfile.ZipFile(buffer).read("archive/data.pkl")


def text(value):
    return b"\x8c" + bytes([len(value)]) + value.encode()


def command(tmp_path):
    return f"touch {tmp_path}/ran"


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_args_survive_as_data(protocol):
    args = argparse.Namespace(
        n=1,
        f=0.5,
        s="x",
        none=None,
        dtype=torch.bfloat16,
        size=torch.Size([2, 3]),
        mode=Mode.FAST,
        sig=signal.SIGTERM,
        raw=b"\xff\x00",
    )
    args.part, args.path, args.kinds, args.inner = (
        functools.partial(int, "3"),
        pathlib.Path("/a/b"),
        {1, 2},
        Holder.Inner(),
    )
    args.count = collections.defaultdict(int, a=1)
    found = load(pickle.dumps(args, protocol))
    assert isinstance(found, Inert)
    assert found.class_name == "argparse.Namespace"
    got = found.attributes()
    assert got.keys() == vars(args).keys()
    assert {k: got[k] for k in ("n", "f", "s", "none", "dtype", "size", "raw", "count")} == {
        "n": 1, "f": 0.5, "s": "x", "none": None, "dtype": "bfloat16", "size": (2, 3),
        "raw": b"\xff\x00", "count": {"a": 1},
    }  # fmt: skip
    assert (got["mode"].class_name.rpartition(".")[2], got["mode"].arguments) == ("Mode", (3,))
    assert got["sig"].arguments == (15,)
    assert got["inner"].class_name.endswith("Holder.Inner")
    assert sorted(got["kinds"]) == [1, 2]


def test_tensors_are_references():
    base = torch.arange(24, dtype=torch.bfloat16)
    sd = collections.OrderedDict(
        whole=base.reshape(4, 6),
        part=base[6:12],
        turned=base.reshape(4, 6).t(),
        param=torch.nn.Parameter(torch.ones(2)),
    )
    sd._metadata = {"": {"version": 1}}
    tagged = torch.ones(3)
    tagged.note = "x"
    sd["tagged"] = tagged
    sd["eight"] = torch.ones(5).to(torch.float8_e4m3fn)
    found = load(torch_pickle(sd))
    assert found == {
        "whole": TensorRef("0", "bfloat16", 24, 0, (4, 6), (6, 1)),
        "part": TensorRef("0", "bfloat16", 24, 6, (6,), (1,)),
        "turned": TensorRef("0", "bfloat16", 24, 0, (6, 4), (1, 6)),
        "param": TensorRef("1", "float32", 2, 0, (2,), (1,)),
        "tagged": TensorRef("2", "float32", 3, 0, (3,), (1,)),
        "eight": TensorRef("3", "float8_e4m3fn", 5, 0, (5,), (1,)),
    }


def hostile(tmp_path):
    """Pickles that run a command when pickle.load reads them, by the opcode that reaches for it."""
    run = command(tmp_path)
    call = text(run) + b"\x85R."
    return {
        "GLOBAL": b"\x80\x02cposix\nsystem\n" + b"X" + struct.pack("<I", len(run)) + run.encode() + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + text("posix") + text("system") + b"\x93" + call,
        "INST": b"(S'" + run.encode() + b"'\niposix\nsystem\n.",
        "OBJ": b"(cos\nsystem\n" + text(run) + b"o.",
        "os": b"cos\nsystem\n" + call,
        "eval": pickle.dumps(Reduced(eval, (f"__import__('os').system({run!r})",))),
        "exec": pickle.dumps(Reduced(exec, (f"import os; os.system({run!r})",)), 2),
        "subprocess": b"csubprocess\ncheck_output\n" + text(run) + b"\x85R.",
        "dotted": b"\x80\x04" + text("torch.serialization") + text("os.system") + b"\x93" + call,
        "loads": pickle.dumps(Reduced(pickle.loads, (pickle.dumps(Reduced(os.system, (run,))),))),
        "getattr": b"\x80\x04"
        + text("builtins")
        + text("getattr")
        + b"\x93"
        + b"\x80\x04"
        + text("posix")
        + text("system")
        + b"\x93"
        + text("__call__")
        + b"\x86R.",
    }


KINDS = sorted(hostile(pathlib.Path("/nowhere")))


@pytest.mark.parametrize("kind", KINDS)
def test_dangerous_names_are_refused(kind, tmp_path):
    with pytest.raises(Refused, match="has no place in a checkpoint; nothing in it was run"):
        load(hostile(tmp_path)[kind])
    assert not list(tmp_path.iterdir())


def test_the_refusal_names_the_culprit(tmp_path):
    with pytest.raises(
        Refused, match=r"^refers to posix\.system, which has no place in a checkpoint; nothing in it was run$"
    ):
        load(hostile(tmp_path)["STACK_GLOBAL"])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pty2", "spawn"),
        ("operator", "methodcaller"),
        ("torch.hub", "load"),
        ("a.b", "c.__globals__.d"),
        ("code", "interact"),
    ],
)
def test_any_other_callable_is_a_record(module, name, tmp_path):
    found = load(b"\x80\x04" + text(module) + text(name) + b"\x93" + text(command(tmp_path)) + b"\x85R.")
    assert isinstance(found, Inert)
    assert found.class_name == f"{module}.{name}"
    assert found.arguments == (command(tmp_path),)
    assert not list(tmp_path.iterdir())


def test_setstate_and_trees_of_reduce_stay_data(tmp_path):
    state = {"__class__": "x", "__setstate__": Reduced(Holder, ()), "__reduce__": 1}
    tree = Reduced(Holder, (Reduced(Holder, (Reduced(Mode, (3,)),)),), state, iter([1, 2]), iter([("k", 3)]))
    found = load(pickle.dumps(tree))
    assert type(found).__mro__[1] is Inert
    assert found.attributes().keys() == state.keys()
    assert found.items == [1, 2, ("k", 3)]
    assert found.arguments[0].arguments[0].arguments == (3,)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x04" + text("m") + text("C") + b"\x93}" + text("class_name") + text("x") + b"sb.",  # BUILD on a class
        b"\x80\x04" + text("m") + text("C") + b"\x93N}" + text("__new__") + text("x") + b"s\x86b.",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}" + text("__defaults__") + b")s\x86b.",  # BUILD on one of our functions
        b"ctorch\nFloatStorage\n}" + text("a") + b"Nsb.",
        b"ctorch\nSize\n}" + text("a") + b"Nsb.",
        b"ccollections\nOrderedDict\n}" + text("a") + b"Nsb.",
        b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))tR.",
        b"ctorch._utils\n_rebuild_tensor_v2\nNR.",
        b"c_codecs\nencode\n" + text("eval") + text("rot13") + b"\x86R.",
        b"\x80\x02\x82\x01.",  # EXT1, EXT2, EXT4
        b"\x80\x02\x83\x01\x00.",
        b"\x80\x02\x84\x01\x00\x00\x00.",
        b"Pstorage\n.",  # persistent ids that torch.save does not write
        b"NQ.",
        text("storage") + b"Q.",
        b"(" + text("storage") + b"NNNNtQ.",
        b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"J\xff\xff\xff\xfftQ.",
        b"(" + text("module") + b"ctorch\nFloatStorage\n" + text("0") + text("cpu") + b"K\x01tQ.",
        b"\x97.",  # an out-of-band buffer
        b"",
        b".",
        b"\x80\x63.",
        b"hello, I am no pickle",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        pickle.dumps(list(range(100)))[:-20],
    ],
)
def test_odd_pickles_are_refused(data):
    with pytest.raises((Refused, MemoryError)):
        load(data)


@pytest.mark.parametrize("name", ["ChunkStorageMetadata", "Metadata"])
@pytest.mark.parametrize("opcode", [b"R", b"\x81"], ids=["REDUCE", "NEWOBJ"])
@pytest.mark.parametrize("state", [b"", b"}b"], ids=["", "BUILD"])
def test_records_take_no_arguments(name, opcode, state):
    data = b"\x80\x02ctorch.distributed.checkpoint.metadata\n" + name.encode() + b"\nK\x01\x85" + opcode + state
    with pytest.raises(Refused, match=f"{name}.* takes no arguments"):
        load(data + b".")


def test_storage_reference():
    pid = b"(" + text("storage") + b"ctorch\nHalfStorage\n" + text("7") + text("cuda:1") + b"K\x09tQ."
    assert load(pid) == StorageRef("7", "float16", 9)


def test_shape_must_be_whole_numbers():
    data = torch_pickle(torch.ones(2, 3)).replace(b"K\x02K\x03\x86", b"K\x02N\x86")
    with pytest.raises(Refused, match="a shape is not made of integers"):
        load(data)


def test_the_collector_is_as_it_was():
    for _ in range(2):
        was = gc.isenabled()
        with pytest.raises(Refused):
            load(b"")
        load(b"N.")
        assert gc.isenabled() is was
        gc.disable()
    gc.enable()


def test_bytes_of_protocol_2():
    assert load(pickle.dumps([b"", b"ab\xff"], 2)) == [b"", b"ab\xff"]
