"""The zip walker against Python's on good zips; on damaged ones it refuses, or finds what was there."""

from __future__ import annotations

import io
import os
import tempfile
import zipfile
import zlib

from hypothesis import strategies as some
from properties import holds

from vlconv.converters.errors import SourceError
from vlconv.converters.formats.zips.items import item_parts
from vlconv.converters.formats.zips.read import Member, find_members, find_tensor

Members = dict[str, bytes]
NAMES = some.text("abcdefgh/.0123456789é", min_size=1, max_size=8)
MEMBERS = some.dictionaries(NAMES, some.binary(max_size=50), min_size=1, max_size=6)
PATCHES = some.lists(some.tuples(some.floats(0, 1, exclude_max=True), some.integers(0, 255)), min_size=1, max_size=3)


def zipped(members: Members, folder: str = "archive/") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(folder + name)
            info.extra = b"FB" + bytes((len(data) % 7, 0)) + b"Z" * (len(data) % 7)  # as torch aligns
            archive.writestr(info, data)
    return buffer.getvalue()


def walked(data: bytes, before: bytes = b"", behind: bytes = b"") -> dict[str, tuple[Member, bytes]]:
    with tempfile.TemporaryFile() as file:
        file.write(before + data + behind)
        file.flush()
        found = find_members(file.fileno(), len(before), len(data))
        return {n: (m, os.pread(file.fileno(), m.nbytes, m.data_offset)) for n, m in found.items()}


@holds(members=MEMBERS, before=some.binary(max_size=9), behind=some.binary(max_size=9))
def test_good_zips(members: Members, before: bytes, behind: bytes) -> None:
    found = walked(zipped(members), before, behind)
    assert {name: data for name, (_, data) in found.items()} == members
    assert all(member.crc == (zlib.crc32(data) or None) for member, data in found.values())


def damaged(data: bytes, patches: list[tuple[float, int]]) -> bytes:
    out = bytearray(data)
    for at, value in patches:
        out[int(at * len(out))] = value
    return bytes(out)


@holds(few=200, members=MEMBERS, patches=PATCHES)
def test_overwritten_bytes(members: Members, patches: list[tuple[float, int]]) -> None:
    """What is found with a sum that is right was there before, if under another name perhaps."""
    try:
        found = walked(damaged(zipped(members), patches))
    except SourceError:
        return
    for member, data in found.values():
        assert member.crc is None or zlib.crc32(data) != member.crc or data in members.values()


@holds(members=MEMBERS, cut=some.floats(0, 1, exclude_max=True))
def test_cut_zips(members: Members, cut: float) -> None:
    data = zipped(members)
    try:
        walked(data[: int(cut * len(data))])
    except SourceError:
        return
    raise AssertionError("taken")


@holds(data=some.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    for tail in (b"", b"PK\x05\x06" + bytes(18)):
        try:
            walked(data + tail)
        except SourceError:
            continue


@holds(few=200, numbers=some.binary(min_size=24, max_size=24), patches=PATCHES)
def test_a_damaged_item_is_no_other_tensor(numbers: bytes, patches: list[tuple[float, int]]) -> None:
    parts = item_parts("float32", (2, 3))
    data = damaged(parts.head(zlib.crc32(numbers)) + numbers + parts.tail(zlib.crc32(numbers)), patches)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.flush()
        try:
            found = find_tensor(file.fileno(), 0, len(data))
        except SourceError:
            return
        stored = os.pread(file.fileno(), found.nbytes, found.data_offset)
        assert stored == numbers or found.crc is None or zlib.crc32(stored) != found.crc
        assert found.nbytes == 24 and found.dtype in ("float32", "int32")
