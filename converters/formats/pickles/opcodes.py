"""The opcodes of pickles that are written: single values as Python's own pickler has them, and the names they may use.

A pickle is a program that whoever loads it runs. What is written here can call nothing but what torch's own
checkpoints call: `global_name` knows no other name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from itertools import islice
from math import prod
from pickle import encode_long
from typing import TypeVar

from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Shape
from .closed_unpickler import STORAGES as TYPED_STORAGES

T = TypeVar("T")

BATCH = 1000
"""Elements that are put into a list or dict at a time."""

STORAGES = {dtype: name for name, dtype in TYPED_STORAGES.items() if dtype in ITEMSIZE}
"""torch's storage class of each dtype. The float8 have none: they lie in an untyped storage that counts bytes."""

UNTYPED = "torch.storage UntypedStorage"
TENSOR, TENSOR_V3 = "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_tensor_v3"
ORDERED, NAMESPACE = "collections OrderedDict", "argparse Namespace"
SIZE, LAYOUT = "torch Size", "torch.serialization _get_layout"

RECORDS = "torch.distributed.checkpoint.metadata"
"""The module of DCP's records."""

_RECORDS = (
    "Metadata",
    "StorageMeta",
    "TensorStorageMetadata",
    "BytesStorageMetadata",
    "ChunkStorageMetadata",
    "TensorProperties",
    "MetadataIndex",
    "_MEM_FORMAT_ENCODING",
)
STORAGE_INFO = "torch.distributed.checkpoint.filesystem _StorageInfo"

GLOBALS = frozenset(
    (
        *(UNTYPED, TENSOR, TENSOR_V3, ORDERED, NAMESPACE, SIZE, LAYOUT, STORAGE_INFO),
        *(f"torch {name}" for name in (*STORAGES.values(), *ITEMSIZE)),
        *(f"{RECORDS} {name}" for name in _RECORDS),
    )
)
"""Every name that a pickle of ours may refer to, as "module name". All make values and nothing else."""


def halves(name: str) -> tuple[str, str]:
    """A name's module and what it is called there.

    Raises:
        ValueError: not one of GLOBALS.
    """
    if name not in GLOBALS:
        raise ValueError(f"{name} has no place in a checkpoint")
    module, _, inner = name.partition(" ")
    return module, inner


def global_name(name: str) -> bytes:
    """GLOBAL, as protocol 2 writes it. Errors as halves."""
    return b"c%s\n%s\n" % tuple(half.encode() for half in halves(name))


def text(value: str) -> bytes:
    """BINUNICODE."""
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + len(data).to_bytes(4, "little") + data


def short_text(value: str) -> bytes:
    """SHORT_BINUNICODE, which protocol 4 has for what is below 256 bytes."""
    data = value.encode("utf-8", "surrogatepass")
    return b"\x8c" + bytes((len(data),)) + data if len(data) < 1 << 8 else text(value)


def integer(n: int) -> bytes:
    """BININT1, BININT2, BININT, LONG1 or LONG4, whichever is the first to hold it."""
    if 0 <= n < 1 << 8:
        return b"K" + n.to_bytes(1, "little")
    if 0 <= n < 1 << 16:
        return b"M" + n.to_bytes(2, "little")
    if -1 << 31 <= n < 1 << 31:
        return b"J" + n.to_bytes(4, "little", signed=True)
    data = encode_long(n)
    return (b"\x8a" + bytes((len(data),)) if len(data) < 1 << 8 else b"\x8b" + struct.pack("<i", len(data))) + data


def floating(x: float) -> bytes:
    """BINFLOAT."""
    return b"G" + struct.pack(">d", x)


def numbered(opcodes: bytes, number: int) -> bytes:
    """An opcode and a number of the memo: the first of two opcodes in one byte, else the second in four."""
    if number < 1 << 8:
        return opcodes[:1] + number.to_bytes(1, "little")
    return opcodes[1:] + number.to_bytes(4, "little")


def tuple_end(length: int) -> tuple[bytes, bytes]:
    """What stands before and behind the elements of a tuple: EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3, or MARK and TUPLE."""
    return (b"(", b"t") if length > 3 else (b"", (b")", b"\x85", b"\x86", b"\x87")[length])


def tuple_of(*items: bytes) -> bytes:
    """A tuple of what is written already."""
    begin, end = tuple_end(len(items))
    return begin + b"".join(items) + end


def batches(values: Iterable[T], opcodes: bytes) -> Iterator[tuple[bytes, list[T], bytes]]:
    """What is put into a list or dict at a time, as Python's pickler does it, and what stands before and behind it.

    Args:
        values: all that is put into it.
        opcodes: for a single one, and for more between MARK and it: b"ae" (APPEND, APPENDS), b"su" (SETITEM, SETITEMS).
    """
    rest = iter(values)
    while batch := list(islice(rest, BATCH)):
        yield (b"(", batch, opcodes[1:]) if len(batch) > 1 else (b"", batch, opcodes[:1])


def dense_strides(shape: Shape) -> Shape:
    """Strides, in elements, of a tensor that lies in its storage row by row."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
