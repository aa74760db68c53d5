"""The zip inside a torch.save file or a DCP item, walked by hand.

The zip lies anywhere in a file, as the slice (offset, length). Members are stored, never compressed, so the bytes of a
tensor can be read in place. The central
directory decides; local headers must agree with it. Python's zipfile would take any prefix, comment, duplicate or
overlap, and cost ten times as much per item.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping
from math import prod
from typing import NamedTuple
from zlib import crc32

from ...errors import CorruptError, UnsupportedError, shown
from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Shape
from ..pickles.closed_unpickler import TensorRef
from ..pickles.tensor_pickle import LIMIT, check_bounds, is_row_major, read_tensor_pickle
from .records import CENTRAL, END, END64, LOCAL, LOCATOR

EDGE = 1024
"""Bytes read at once from either end of a slice: all headers of a DCP item, mostly."""

DIRECTORY_LIMIT = 64 << 20
"""Bytes of the largest central directory that is read: half a million members."""


class Member(NamedTuple):
    """A stored member: absolute offset of its bytes in the file, their number, their CRC-32 (None.

    Not stored, which torch writes as 0).
    """

    data_offset: int
    nbytes: int
    crc: int | None


class ItemTensor(NamedTuple):
    """A tensor in a file, as a view of its storage.

    Attributes:
        dtype: without prefix, one of ITEMSIZE.
        shape: in elements.
        data_offset: first byte of the storage in the file.
        nbytes: of the storage, of which the tensor may be a part.
        crc: CRC-32 of those bytes; None: not stored.
        start: first element in the storage.
        strides: in elements; None: row-major.
    """

    dtype: str
    shape: Shape
    data_offset: int
    nbytes: int
    crc: int | None
    start: int = 0
    strides: Shape | None = None


class _Slice:
    """Reads inside (offset, length) of a file; both ends are kept."""

    __slots__ = ("fd", "head", "length", "offset", "tail", "tail_start")

    def __init__(self, fd: int, offset: int, length: int) -> None:
        self.fd, self.offset, self.length = fd, offset, length
        self.head = os.pread(fd, min(EDGE, length), offset)
        self.tail_start = max(0, length - EDGE)
        self.tail = self.head if length <= EDGE else os.pread(fd, EDGE, offset + self.tail_start)
        if len(self.head) != min(EDGE, length) or len(self.tail) != length - self.tail_start:
            raise CorruptError("is shorter than its length says")

    def read(self, start: int, count: int) -> bytes:
        """`count` bytes from `start` on, relative to the slice."""
        if start < 0 or count < 0 or start + count > self.length:
            raise CorruptError("refers to bytes outside itself")
        if start + count <= len(self.head):
            return self.head[start : start + count]
        if start >= self.tail_start:
            return self.tail[start - self.tail_start : start - self.tail_start + count]
        data = os.pread(self.fd, count, self.offset + start)
        if len(data) != count:
            raise CorruptError("is shorter than its length says")
        return data


def find_members(fd: int, offset: int, length: int) -> dict[str, Member]:
    """Every member of the zip in that slice of a file.

    Args:
        fd: an open file, read with pread.
        offset: first byte of the zip in the file.
        length: its bytes.

    Returns:
        Members by name, without the folder all of them share ("archive/data/0" is "data/0").

    Raises:
        CorruptError: not a zip, cut short, or one that contradicts itself. The text lacks the file's name: the caller
            knows it.
        UnsupportedError: compressed or encrypted members.
    """
    return _members(_Slice(fd, offset, length))


def find_tensor(fd: int, offset: int, length: int) -> ItemTensor:
    """The tensor of one DCP item, a torch.save zip of a single tensor that is all of its storage, row by row.

    Arguments and errors as find_members.
    """
    part = _Slice(fd, offset, length)
    members = _members(part)
    check_byteorder(members, fd, part)
    pickled = members.get("data.pkl")
    if pickled is None or pickled.nbytes > LIMIT:
        raise CorruptError("has no data.pkl of a single tensor")
    data = part.read(pickled.data_offset - offset, pickled.nbytes)
    if pickled.crc is not None and crc32(data) != pickled.crc:
        raise CorruptError("is damaged: the checksum of data.pkl differs")
    ref = read_tensor_pickle(data)
    found = place(ref, members)
    if found.start or found.strides is not None or prod(ref.shape) != ref.numel:
        what = "holds a part of a larger storage, or a tensor not stored row by row"
        raise UnsupportedError(
            f"{what}: {list(ref.shape)}, strides {list(ref.stride)}", "Save it again after .contiguous().clone()."
        )
    return found


def place(ref: TensorRef, members: Mapping[str, Member]) -> ItemTensor:
    """Where the bytes of a tensor are.

    Args:
        ref: the tensor as its pickle describes it.
        members: of the same zip.

    Raises:
        CorruptError: the storage is missing, or smaller than the tensor or the pickle says.
        UnsupportedError: a dtype that is not read.
    """
    if ref.dtype not in ITEMSIZE:
        raise UnsupportedError(
            f"holds a tensor of dtype {shown(ref.dtype)}, which is not read",
            "Only plain, unquantised weights are converted.",
        )
    member = members.get(f"data/{ref.key}")
    if member is None:
        raise CorruptError(f"has no member data/{shown(ref.key)} for its tensor")
    if ref.numel * ITEMSIZE[ref.dtype] != member.nbytes:
        raise CorruptError(f"holds {member.nbytes} bytes where its data.pkl says {ref.numel} elements of {ref.dtype}")
    check_bounds(ref)
    return ItemTensor(
        ref.dtype, ref.shape, *member, ref.offset, None if is_row_major(ref.shape, ref.stride) else ref.stride
    )


def check_byteorder(members: Mapping[str, Member], fd: int, part: _Slice | None = None) -> None:
    """Refuses numbers of a big-endian machine. Files of old torch versions do not say."""
    member = members.get("byteorder")
    if member is None:
        return
    size = min(member.nbytes, 16)
    order = part.read(member.data_offset - part.offset, size) if part else os.pread(fd, size, member.data_offset)
    if order != b"little":
        raise UnsupportedError(
            f"was written with byte order {shown(order.decode('latin-1'))!r}; only little is read",
            "Load it in torch on a little-endian machine and save it again.",
        )


def _members(part: _Slice) -> dict[str, Member]:
    start, size, entries = _directory(part)
    data = part.read(start, size)
    found: dict[str, Member] = {}
    spans: list[tuple[int, int]] = []
    at, prefix = 0, b""
    for _ in range(entries):
        if at + 46 > size:
            raise CorruptError("has a cut central directory")
        magic, _, _, flags, method, _, _, crc, packed, nbytes, n_name, n_extra, n_comment, disk, _, _, header = (
            CENTRAL.unpack_from(data, at)
        )
        name, end = data[at + 46 : at + 46 + n_name], at + 46 + n_name + n_extra + n_comment
        if magic != b"PK\x01\x02" or end > size or disk not in (0, 0xFFFF):
            raise CorruptError("has a damaged central directory")
        if 0xFFFFFFFF in (packed, nbytes, header):
            packed, nbytes, header = _zip64(data[at + 46 + n_name : at + 46 + n_name + n_extra], packed, nbytes, header)
        if method or flags & 0x2041 or packed != nbytes:
            raise UnsupportedError(
                f"holds a compressed or encrypted member {shown(name.decode('latin-1'))}",
                "Save it again with torch.save.",
            )
        if not at:
            prefix = name[: name.find(b"/") + 1]
        if not name.startswith(prefix):
            raise CorruptError("has members in more than one folder")
        first = _local(part, header, name, (flags, crc, nbytes))
        short = _text(name[len(prefix) :])
        if short in found:
            raise CorruptError(f"has two members of the name {shown(short)}")
        found[short] = Member(part.offset + first, nbytes, crc or None)
        spans.append((header, first + nbytes))
        at = end
    if at != size:
        raise CorruptError("has a central directory of another size than it says")
    _check_spans(spans, start)
    return found


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise CorruptError(f"has a member whose name is not text: {shown(name.decode('latin-1'))}") from None


def _check_spans(spans: list[tuple[int, int]], directory: int) -> None:
    reached = 0
    for header, end in sorted(spans):
        if header < reached:
            raise CorruptError("has overlapping members")
        reached = end
    if reached > directory:
        raise CorruptError("has members that reach into its central directory")


def _directory(part: _Slice) -> tuple[int, int, int]:
    """First byte, bytes and entries of the central directory. It ends where the end records begin.

    Nothing in between, nothing behind.
    """
    if part.length < 22:
        raise CorruptError("is not a torch.save file")
    end = part.length - 22
    magic, disk, start_disk, here, entries, size, start, comment = END.unpack_from(part.tail, len(part.tail) - 22)
    if magic != b"PK\x05\x06" or comment or disk or start_disk or here != entries:
        raise CorruptError("is not a torch.save file, or is cut short")
    if end >= 20 and part.read(end - 20, 4) == b"PK\x06\x07":
        end, big = _end64(part, end - 20)
        for small, sentinel, large in zip((entries, size, start), (0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF), big, strict=True):
            if small != large and small != sentinel:
                raise CorruptError("has two end records that contradict each other")
        entries, size, start = big
    if start + size != end or size < entries * 46 or size > DIRECTORY_LIMIT:
        raise CorruptError("has a central directory that does not fit")
    return start, size, entries


def _end64(part: _Slice, locator: int) -> tuple[int, tuple[int, int, int]]:
    _, disk, end, disks = LOCATOR.unpack(part.read(locator, 20))
    if end + 56 != locator or disk or disks > 1:
        raise CorruptError("has a damaged end record")
    magic, size, _, _, disk, start_disk, here, entries, nbytes, start = END64.unpack(part.read(end, 56))
    if magic != b"PK\x06\x06" or size != 44 or disk or start_disk or here != entries:
        raise CorruptError("has a damaged end record")
    return end, (entries, nbytes, start)


def _zip64(extra: bytes, packed: int, nbytes: int, header: int) -> tuple[int, int, int]:
    """The sizes that did not fit in 32 bits, from the extra field.

    Unpacked size, packed size, header offset, those that overflowed and in that order.
    """
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == 1 and at + size <= len(extra):
            large = iter(struct.unpack_from(f"<{size // 8}Q", extra, at))
            values = [next(large, -1) if value == 0xFFFFFFFF else value for value in (nbytes, packed, header)]
            if -1 in values:
                break
            return values[1], values[0], values[2]
        at += size
    raise CorruptError("has a damaged zip64 field")


def _local(part: _Slice, header: int, name: bytes, wanted: tuple[int, int, int]) -> int:
    """First byte of a member's data.

    Its local header is checked first, against (flags, crc, nbytes) of the central directory.
    """
    data = part.read(header, 30 + len(name))
    magic, _, flags, method, _, _, crc, packed, nbytes, n_name, n_extra = LOCAL.unpack_from(data)
    if magic != b"PK\x03\x04" or method or flags != wanted[0] or n_name != len(name) or data[30:] != name:
        raise CorruptError(
            f"has a local header that contradicts its central directory, at {shown(name.decode('latin-1'))}"
        )
    # With flag 8 the sizes may follow the data instead; 0xFFFFFFFF means zip64.
    if not flags & 8 and (
        crc != wanted[1] or (nbytes, packed) not in ((wanted[2], wanted[2]), (0xFFFFFFFF, 0xFFFFFFFF))
    ):
        raise CorruptError(
            f"has a local header that contradicts its central directory, at {shown(name.decode('latin-1'))}"
        )
    first = header + 30 + n_name + n_extra
    if first + wanted[2] > part.length:
        raise CorruptError(f"has a member that reaches outside of it: {shown(name.decode('latin-1'))}")
    return int(first)
