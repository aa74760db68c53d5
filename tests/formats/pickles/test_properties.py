"""The closed unpickler and the answers of its process: plain data as it is, anything else refused in words."""

from __future__ import annotations

import io
import json
import pickle
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as some
from properties import holds

from vlconv.converters.errors import CorruptError, SourceError
from vlconv.converters.formats.dcp.metadata import read_dcp_metadata
from vlconv.converters.formats.pickles.closed_unpickler import load
from vlconv.converters.formats.pickles.sandbox import _unpacked, decoded
from vlconv.converters.formats.pickles.tensor_pickle import read_tensor_pickle, write_tensor_pickle
from vlconv.converters.formats.zips.torch_save import read_torch_save

LEAVES = some.none() | some.booleans() | some.integers() | some.floats(allow_nan=False) | some.text(max_size=9)
VALUES = some.recursive(
    LEAVES | some.binary(max_size=9),
    lambda inner: (
        some.lists(inner, max_size=4)
        | some.lists(inner, max_size=4).map(tuple)
        | some.dictionaries(some.text(max_size=5) | some.integers(), inner, max_size=4)
    ),
    max_leaves=25,
)
PROTOCOLS = some.integers(0, pickle.HIGHEST_PROTOCOL)
PIECES = [
    b"cos\nsystem\n",
    b"(S'true'\n",
    b"tR",
    b"X\x02\0\0\0ab",
    b"K\x01",
    b"\x8c\x02os\x8c\x06system\x93",
    b"q\x00",
    b"h\x00",
    b"ctorch\nSize\n",
    b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n",
    b"ctorch.distributed.checkpoint.metadata\nMetadata\n",
    b"cargparse\nNamespace\n",
    b"\x80\x04",
    b"I1\n",
    b"L1L\n",
]
OPCODES = [bytes([n]) for n in range(256)] + PIECES
SOUP = some.lists(some.sampled_from(OPCODES), max_size=40).map(b"".join)


@holds(value=VALUES, protocol=PROTOCOLS)
def test_plain_data_come_as_they_are(value: Any, protocol: int) -> None:
    assert same(load(pickle.dumps(value, protocol)), value)


def same(a: Any, b: Any) -> bool:
    return repr(a) == repr(b) or a == b


@holds(few=15, many=300, value=VALUES, protocol=PROTOCOLS)
def test_and_through_the_process(value: Any, protocol: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        found = read_torch_save(archived(Path(folder), pickle.dumps({"x": value}, protocol))).tree
    assert same(found, {"x": value})


@holds(few=30, many=500, soup=SOUP)
def test_any_opcodes_through_the_process(soup: bytes) -> None:
    """Plain data, or an error that names the file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "ckpt"
        folder.mkdir()
        (folder / ".metadata").write_bytes(soup)
        with pytest.raises(
            SourceError, match=r"^ckpt/\.metadata ."
        ) as caught:  # none of these is a checkpoint's tables
            read_dcp_metadata(folder)
        assert caught.value.hint and str(caught.value).replace("\n", "").isprintable()
        try:
            read_torch_save(archived(folder, soup + b"."))
            said = "ckpt/common.pt is read"
        except SourceError as fault:
            said = fault.what
        assert said.startswith("ckpt/common.pt ") and said.isprintable()


def archived(folder: Path, pickled: bytes) -> Path:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
    (folder / "common.pt").write_bytes(buffer.getvalue())
    return folder / "common.pt"


@holds(few=200, data=some.binary(max_size=60))
def test_any_bytes_as_an_answer(data: bytes) -> None:
    for answer in (data, b"vlconv01" + len(data).to_bytes(8, "little") + data):
        with pytest.raises(CorruptError, match="no proper answer"):
            _unpacked(answer)


COLUMNS = some.dictionaries(some.sampled_from(["a", "b"]), some.integers(-3, 5) | some.none() | some.just(1 << 60))


MAGIC = some.sampled_from([b"vlconv01", b"vlconv02"])


@holds(few=300, columns=COLUMNS, more=some.binary(max_size=80), magic=MAGIC)
def test_any_columns_in_an_answer(columns: dict[str, Any], more: bytes, magic: bytes) -> None:
    head = json.dumps({"columns": columns}).encode()
    try:
        header, found = _unpacked(magic + len(head).to_bytes(8, "little") + head + more)
    except CorruptError:
        return
    assert magic == b"vlconv01"
    assert header["columns"] == columns == {name: len(column) for name, column in found.items()}


NODES = some.recursive(
    LEAVES,
    lambda inner: some.tuples(some.sampled_from("ltdTbr?"), inner, inner).map(list) | some.lists(inner, max_size=5),
)


@holds(few=200, node=NODES)
def test_any_tree_in_an_answer(node: Any) -> None:
    """Only what read_torch_save catches."""
    try:
        decoded(node)
    except (KeyError, TypeError, ValueError, IndexError, RecursionError):
        return


SHAPES = some.lists(some.integers(0, 1 << 12), max_size=5).map(tuple)


@holds(dtype=some.sampled_from(["float32", "bfloat16", "float8_e4m3fn", "bool"]), shape=SHAPES)
def test_the_pickle_of_a_tensor(dtype: str, shape: tuple[int, ...]) -> None:
    found = read_tensor_pickle(write_tensor_pickle(dtype, shape))
    assert (found.dtype, found.shape, found.offset, found.key) == (dtype, shape, 0, "0")


@holds(few=300, soup=SOUP, at=some.floats(0, 1), cut=some.integers(0, 9), alone=some.booleans())
def test_any_opcodes_as_a_tensor(soup: bytes, at: float, cut: int, alone: bool) -> None:
    good = write_tensor_pickle("float32", (2, 3))
    place = int(at * len(good))
    data = b"\x80\x02" + soup if alone else good[:place] + soup + good[place + cut :]
    try:
        found = read_tensor_pickle(data)
    except CorruptError as fault:
        found, said = None, fault.what
    if found is None:
        assert said.startswith("data.pkl ") and said.isprintable()
    else:
        assert all(type(n) is int and n >= 0 for n in (*found.shape, *found.stride, found.offset, found.numel))
