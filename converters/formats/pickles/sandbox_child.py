"""The process that unpickles.

Run by its path, isolated, by sandbox.py. It reads a slice of an inherited file, answers on stdout, and may die of its
limits. Its stdin is a pipe into which nobody writes, and whose other end the parent alone holds.

    python -I -S sandbox_child.py KIND FD OFFSET LENGTH CRC        KIND is "dcp" or "tree", CRC -1 when there is none

The answer is no pickle: 8 bytes "vlconv01", then the header's length (8 bytes, little), the header (JSON), then arrays
of little-endian int64 whose lengths the
header gives. A header with the key "refused" says what is wrong with the file, one with "errno" why the system did not
let it be read. Standard library only.
"""

from __future__ import annotations

import fcntl
import gc
import importlib.util
import json
import os
import resource
import sys
import zlib
from array import array
from base64 import b64encode
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import closed_unpickler as pickles
else:  # by path: an isolated process knows no packages, and importing vlconv would cost more than the work
    _spec = importlib.util.spec_from_file_location(
        "closed_unpickler", __file__.removesuffix("sandbox_child.py") + "closed_unpickler.py"
    )
    pickles = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(pickles)

MAGIC = b"vlconv01"
DEPTH = 60
"""Containers within containers, at most."""

LIMIT = 1 << 62

BITS = 333
"""Of an integer among args, at most: 100 digits, which a float still holds."""


SIGKILL = 9


def end_with_parent() -> None:
    """Let the system kill this process when the parent's end of stdin is closed, which a parent's death does, too.

    (prctl would do the same; to load what calls it takes ten times as long.)
    """
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETSIG, SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        if not os.read(0, 1):  # it was closed before
            os._exit(1)
    except BlockingIOError:
        pass


def limit(nbytes: int) -> None:
    """Caps memory and CPU time by the size of the pickle, forbids files and core dumps."""
    memory = (512 << 20) + 32 * nbytes
    seconds = 10 + nbytes // 5_000_000
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(
            kind, (least, hard if kind == resource.RLIMIT_CPU else least)
        )  # so that SIGXCPU tells time from other deaths


def read(fd: int, offset: int, length: int, crc: int) -> bytes:
    """The slice of the file, checked against its CRC-32."""
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise pickles.Refused("is shorter than its length says")
    if crc >= 0 and zlib.crc32(data) != crc:
        raise pickles.Refused("is damaged: its checksum differs")
    return data


def _integer(value: Any) -> int:
    if type(value) is not int or not 0 <= value < LIMIT:
        raise pickles.Refused("holds an offset or a length that is no number")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise pickles.Refused("holds a name that is no text")
    return value


class MetadataColumns:
    """DCP metadata as columns. Names and files in the header; per tensor its rank and shape.

    Per item its tensor, file, offset, length and box.
    """

    def __init__(self) -> None:
        self.header: dict[str, Any] = {"files": [], "names": [], "dtypes": [], "byte_names": []}
        self.columns = {
            name: array("q")
            for name in (
                "rank",
                "shape",
                "tensor",
                "file",
                "offset",
                "length",
                "box",
                "byte_file",
                "byte_offset",
                "byte_length",
            )
        }
        self._files: dict[str, int] = {}

    def file(self, info: Any) -> int:
        """Number of an item's file."""
        if not isinstance(info, pickles.StorageInfo):
            raise pickles.Refused("names a storage place in an unknown way")
        if info.transform_descriptors:
            raise pickles.Refused("describes transformed (compressed?) items, which are not read")
        name = _text(info.relative_path)
        number = self._files.setdefault(name, len(self._files))
        if number == len(self.header["files"]):
            self.header["files"].append(name)
        return number

    def place(self, prefix: str, info: Any) -> None:
        """File, offset and length of one item."""
        columns = self.columns
        columns[prefix + "file"].append(self.file(info))
        columns[prefix + "offset"].append(_integer(info.offset))
        columns[prefix + "length"].append(_integer(info.length))

    def tensor(self, name: str, record: Any, places: dict[Any, Any]) -> None:
        """One tensor with those of its chunks that lie somewhere."""
        shape = pickles.sizes(record.size)
        if not isinstance(record.properties, pickles.TensorProperties) or not isinstance(record.chunks, list):
            raise pickles.Refused("describes a tensor in an unknown way")
        number, rank = len(self.header["names"]), len(shape)
        self.header["names"].append(name)
        self.header["dtypes"].append(pickles.dtype_name(record.properties.dtype))
        self.columns["rank"].append(rank)
        self.columns["shape"].extend(map(_integer, shape))
        alone = len(record.chunks) == 1
        for chunk in record.chunks:
            if not isinstance(chunk, pickles.ChunkStorageMetadata):
                raise pickles.Refused("describes a chunk in an unknown way")
            offsets, lengths = pickles.sizes(chunk.offsets), pickles.sizes(chunk.sizes)
            if len(offsets) != rank or len(lengths) != rank:
                raise pickles.Refused(f"describes a chunk of {name} with another number of axes than the tensor has")
            info = places.get(offsets) or (places.get(None) if alone else None)
            if info is not None:
                self.columns["tensor"].append(number)
                self.columns["box"].extend(map(_integer, offsets + lengths))
                self.place("", info)


def _places(storage_data: Any) -> dict[str, dict[Any, Any]]:
    """storage_data by name and offset."""
    places: dict[str, dict[Any, Any]] = {}
    for index, info in storage_data.items():
        if not isinstance(index, pickles.MetadataIndex):
            raise pickles.Refused("keeps its storage places under unknown keys")
        offset = index.offset if index.offset is None else pickles.sizes(index.offset)
        of_name = places.setdefault(_text(index.fqn), {})
        if offset in of_name:
            raise pickles.Refused(f"names two places for one chunk of {index.fqn}")
        of_name[offset] = info
    return places


def dcp(value: Any) -> tuple[dict[str, Any], dict[str, array[int]]]:
    """A DCP Metadata as a header and columns."""
    if not isinstance(value, pickles.Metadata):
        raise pickles.Refused("is not the metadata of a torch distributed checkpoint")
    entries, storage = value.state_dict_metadata, value.storage_data
    if not isinstance(entries, dict) or not isinstance(storage, dict):
        raise pickles.Refused("lacks its tables: the save was not finished, or another storage wrote it")
    table, places = MetadataColumns(), _places(storage)
    for name, record in entries.items():
        of_name = places.get(_text(name), {})
        if isinstance(record, pickles.TensorStorageMetadata):
            table.tensor(name, record, of_name)
        elif isinstance(record, pickles.BytesStorageMetadata):
            for info in of_name.values():
                table.header["byte_names"].append(name)
                table.place("byte_", info)
        else:
            raise pickles.Refused(f"describes {name} in an unknown way")
    return table.header, table.columns


class Tree:
    """Any loaded value as JSON, expanded.

    Shared parts are repeated, so the number of nodes is bounded by the pickle's size.

    None, bool, int, float and str stand for themselves; the rest is a list that begins with its kind: "l" list, "t"
    tuple, "d" dict (pairs),
    "b" bytes (base64), "T" TensorRef, "r" record (class name, arguments, attributes as pairs, items).
    """

    def __init__(self, nbytes: int) -> None:
        self.left = 100_000 + 4 * nbytes
        self.path: set[int] = set()

    def encode(self, value: Any) -> Any:
        """One value and all below it."""
        self.left -= 1
        if self.left < 0:
            raise pickles.Refused("repeats its parts beyond any checkpoint's size")
        if value is None or isinstance(value, (bool, float)):
            return value
        if isinstance(value, str):
            self.left -= len(value) >> 3
            return str(value)
        if isinstance(value, int):
            return value if value.bit_length() <= BITS else ["r", "int", [], [], []]
        if isinstance(value, (bytes, bytearray)):
            self.left -= len(value) >> 3
            return ["b", b64encode(value).decode()]
        if isinstance(value, pickles.TensorRef):
            return ["T", *value[:4], [_integer(n) for n in value.shape], [_integer(n) for n in value.stride]]
        return self.compound(value)

    def compound(self, value: Any) -> Any:
        """A container or record. One inside itself is cut there: nothing that is wanted does so."""
        if id(value) in self.path:
            return ["r", "(itself)", [], [], []]
        if len(self.path) >= DEPTH:
            raise pickles.Refused("is nested deeper than any checkpoint")
        self.path.add(id(value))
        try:
            return self.parts(value)
        finally:
            self.path.discard(id(value))

    def parts(self, value: Any) -> Any:
        """What is in a container or record."""
        if isinstance(value, dict):
            return ["d", self.pairs(value)]
        if isinstance(value, (list, set, frozenset)):
            return ["l", [self.encode(v) for v in value]]
        if isinstance(value, pickles.Inert):
            attributes = value.attributes()
            return [
                "r",
                value.class_name,
                [self.encode(v) for v in value.arguments],
                self.pairs(attributes),
                [self.encode(v) for v in value.items or ()],
            ]
        if isinstance(value, type):
            return ["r", getattr(value, "class_name", value.__name__), [], [], []]
        if isinstance(value, (tuple, pickles.StorageRef)):
            return ["t", [self.encode(v) for v in value]]
        return ["r", type(value).__name__, [], [], []]

    def pairs(self, value: dict[Any, Any]) -> list[Any]:
        """A dict's items."""
        return [[self.encode(k), self.encode(v)] for k, v in value.items()]


def answer(kind: str, data: bytes) -> tuple[dict[str, Any], dict[str, array[int]]]:
    """Header and columns for a pickle."""
    value = pickles.load(data)
    return dcp(value) if kind == "dcp" else ({"tree": Tree(len(data)).encode(value)}, {})


def send(header: dict[str, Any], columns: dict[str, array[int]]) -> None:
    """Writes the answer to stdout."""
    if sys.byteorder != "little":
        for column in columns.values():
            column.byteswap()
    text = json.dumps(
        {**header, "columns": {name: len(column) for name, column in columns.items()}}, separators=(",", ":")
    ).encode()
    out = sys.stdout.buffer
    out.write(MAGIC + len(text).to_bytes(8, "little") + text)
    for column in columns.values():
        out.write(memoryview(column))
    out.flush()


def main(arguments: list[str]) -> None:
    """Reads, unpickles, answers."""
    kind, (fd, offset, length, crc) = arguments[0], map(int, arguments[1:])
    end_with_parent()
    limit(length)
    gc.disable()
    columns: dict[str, array[int]] = {}
    header: dict[str, Any]
    try:
        header, columns = answer(kind, read(fd, offset, length, crc))
    except pickles.Refused as fault:
        header = {"refused": str(fault)[:1000]}
    except MemoryError:
        header = {"refused": "needs far more memory to read than its size explains"}
    except RecursionError:
        header = {"refused": "is nested deeper than any checkpoint"}
    except OSError as fault:  # of reading: nothing else here asks the system
        header = {"errno": fault.errno}
    except Exception as fault:  # whatever it is, an answer is better than a traceback nobody sees
        header = {"refused": f"cannot be read ({type(fault).__name__}: {fault})"[:1000]}
    send(header, columns)


if __name__ == "__main__":
    main(sys.argv[1:])
    os._exit(0)  # freeing a million records one by one takes longer than reading them
