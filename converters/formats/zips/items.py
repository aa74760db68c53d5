"""Builds the torch.save zip of one DCP item around a tensor's bytes, which are written by someone else.

Everything but the checksum is known before the data: sizes, offsets, headers. So a writer can put the data first and
the head and tail when the sum is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from math import prod
from typing import NamedTuple
from zlib import crc32

from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Shape
from ..pickles.tensor_pickle import write_tensor_pickle
from .records import CENTRAL, END, END64, LOCAL, LOCATOR

ALIGNMENT = 64
"""Where torch puts a tensor's bytes, counted from the item's first byte."""

BIG = 0xFFFFFFFF
UTF8 = 0x800
DATE = 0x21  # 1 January 1980: the same bytes on every run


class _Entry(NamedTuple):
    name: bytes
    nbytes: int
    header: int  # its local header's offset in the item
    crc: int


class ItemParts(NamedTuple):
    """An item without its data: head, `data.nbytes` bytes, tail. Lengths never depend on the checksum."""

    shared: bytes  # the members before the data
    entries: tuple[_Entry, ...]
    data: _Entry
    head_nbytes: int
    tail_nbytes: int

    @property
    def data_offset(self) -> int:
        """First byte of the data in the item: the head's length."""
        return self.head_nbytes

    @property
    def nbytes(self) -> int:
        """Bytes of the whole item."""
        return self.head_nbytes + self.data.nbytes + self.tail_nbytes

    def head(self, crc: int) -> bytes:
        """The `head_nbytes` bytes before the data.

        Args:
            crc: CRC-32 of the data.
        """
        return self.shared + _local(self.data._replace(crc=crc), len(self.shared))

    def tail(self, crc: int) -> bytes:
        """The `tail_nbytes` bytes after the data: central directory and end records."""
        directory = b"".join(map(_central, (*self.entries, self.data._replace(crc=crc))))
        return directory + _end(len(self.entries) + 1, len(directory), self.head_nbytes + self.data.nbytes)


@lru_cache(1024)  # the items of one shape are alike, to the byte
def item_parts(dtype: str, shape: Shape) -> ItemParts:
    """The item of a contiguous tensor.

    Args:
        dtype: torch's name without prefix, one of ITEMSIZE.
        shape: in elements; the data are prod(shape) * ITEMSIZE[dtype] little-endian bytes in row-major order.
    """
    return _parts(write_tensor_pickle(dtype, shape), prod(shape) * ITEMSIZE[dtype])


@cache
def bytes_item() -> bytes:
    """torch.save of `[torch.empty(0, dtype=torch.uint8)]`.

    The `_extra_state` of a Transformer Engine module without fp8.
    """
    parts = _parts(write_tensor_pickle("uint8", (0,), in_list=True), 0)
    return parts.head(0) + parts.tail(0)


def _parts(pickled: bytes, nbytes: int) -> ItemParts:
    shared, entries = _leading(pickled)
    data = _Entry(b"archive/data/0", nbytes, len(shared), 0)
    head = len(shared) + len(_local(data, len(shared)))
    directory = sum(len(_central(entry)) for entry in (*entries, data))
    return ItemParts(
        shared, tuple(entries), data, head, directory + len(_end(len(entries) + 1, directory, head + nbytes))
    )


def _local(entry: _Entry, at: int, align: int = ALIGNMENT) -> bytes:
    """A local header whose data begin at a multiple of `align`.

    Torch fills up with an extra field "FB", so does this.
    """
    size, extra = (
        (BIG, b"\x01\x00\x10\x00" + 2 * entry.nbytes.to_bytes(8, "little"))
        if entry.nbytes >= BIG
        else (entry.nbytes, b"")
    )
    if align > 1:
        filler = -(at + LOCAL.size + len(entry.name) + len(extra) + 4) % align
        extra += b"FB" + filler.to_bytes(2, "little") + b"Z" * filler
    return (
        LOCAL.pack(
            b"PK\x03\x04",
            45 if size == BIG else 20,
            UTF8,
            0,
            0,
            DATE,
            entry.crc,
            size,
            size,
            len(entry.name),
            len(extra),
        )
        + entry.name
        + extra
    )


def _central(entry: _Entry) -> bytes:
    """A central directory entry. Numbers beyond 32 bits stand in the extra field.

    Size, packed size, header offset, only those and in that order.
    """
    big = [n.to_bytes(8, "little") for n in (entry.nbytes, entry.nbytes, entry.header) if n >= BIG]
    extra = b"\x01\x00" + (8 * len(big)).to_bytes(2, "little") + b"".join(big) if big else b""
    size, version = min(entry.nbytes, BIG), 45 if big else 20
    fixed = (
        b"PK\x01\x02",
        version,
        version,
        UTF8,
        0,
        0,
        DATE,
        entry.crc,
        size,
        size,
        len(entry.name),
        len(extra),
        0,
        0,
        0,
        0,
        min(entry.header, BIG),
    )
    return CENTRAL.pack(*fixed) + entry.name + extra


def _end(entries: int, size: int, start: int) -> bytes:
    """The end records of a central directory of `size` bytes at `start`."""
    few = min(entries, 0xFFFF)
    short = END.pack(b"PK\x05\x06", 0, 0, few, few, size, min(start, BIG), 0)
    if start < BIG and entries < 0xFFFF:
        return short
    large = END64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, entries, entries, size, start)
    return large + LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1) + short


class SavedParts(NamedTuple):
    """A torch.save file of many storages without their data: everything around them has a known length."""

    entries: tuple[_Entry, ...]  # data.pkl, byteorder, version
    shared: bytes  # their members
    storages: tuple[_Entry, ...]
    offsets: tuple[int, ...]  # of each storage's bytes in the file
    nbytes: int  # of the whole file

    def literals(self, sums: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """(offset, bytes) of everything but the storages.

        Args:
            sums: CRC-32 of each storage.
        """
        yield 0, self.shared
        summed = [entry._replace(crc=crc) for entry, crc in zip(self.storages, sums, strict=True)]
        for entry in summed:
            yield entry.header, _local(entry, entry.header)
        directory = b"".join(map(_central, (*self.entries, *summed)))
        start = self.offsets[-1] + self.storages[-1].nbytes if self.storages else len(self.shared)
        yield start, directory + _end(len(self.entries) + len(summed), len(directory), start)


def saved_parts(pickled: bytes, sizes: Sequence[int]) -> SavedParts:
    """A torch.save file whose data.pkl refers to storages "0", "1", … of these sizes, in bytes."""
    shared, entries = _leading(pickled)
    storages, offsets, at = [], [], len(shared)
    for number, nbytes in enumerate(sizes):
        entry = _Entry(f"archive/data/{number}".encode(), nbytes, at, 0)
        storages.append(entry)
        offsets.append(at + len(_local(entry, at)))
        at = offsets[-1] + nbytes
    directory = sum(len(_central(entry)) for entry in (*entries, *storages))
    return SavedParts(
        tuple(entries),
        shared,
        tuple(storages),
        tuple(offsets),
        at + directory + len(_end(len(entries) + len(storages), directory, at)),
    )


def saved(pickled: bytes) -> bytes:
    """A torch.save file whose data.pkl refers to no storage."""
    return b"".join(data for _, data in saved_parts(pickled, ()).literals(()))


def _leading(pickled: bytes) -> tuple[bytes, list[_Entry]]:
    """The members before any storage."""
    shared, entries = b"", []
    for name, content in ((b"data.pkl", pickled), (b"byteorder", b"little"), (b"version", b"3\n")):
        entry = _Entry(b"archive/" + name, len(content), len(shared), crc32(content))
        entries.append(entry)
        shared += _local(entry, len(shared), align=1) + content
    return shared, entries
