"""--read-back: what comes back from the disk is held against what was to be written."""

from __future__ import annotations

import errno
import os
import zlib
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.errors import TargetError
from vlconv.converters.formats.output_file import WrittenFile
from vlconv.converters.output.writing import read_back as module
from vlconv.converters.output.writing.read_back import read_back
from vlconv.converters.report import Silent

SIZES = [0, 1, 4095, 4096, 4097, 70_000]


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[WrittenFile]:
    monkeypatch.setattr(module, "BLOCK", 16384)
    files = []
    for size in SIZES:
        data = os.urandom(size)
        (tmp_path / f"{size}").write_bytes(data)
        files.append(WrittenFile(f"{size}", size, zlib.crc32(data)))
    return files


def no_direct(monkeypatch: pytest.MonkeyPatch, *, at_once: bool) -> None:
    """A file system that knows no O_DIRECT: it says so at the opening, or at the first read."""
    real_open, real_read, direct = os.open, os.preadv, set[int]()

    def opening(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_DIRECT and at_once:
            raise OSError(errno.EINVAL, "Invalid argument", str(path))
        fd = real_open(path, flags & ~os.O_DIRECT, *rest, **more)
        (direct.add if flags & os.O_DIRECT else direct.discard)(fd)
        return fd

    def reading(fd: int, buffers: Any, at: int) -> int:
        if fd in direct:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real_read(fd, buffers, at)

    monkeypatch.setattr(os, "open", opening)
    monkeypatch.setattr(os, "preadv", reading)


def test_the_same_bytes(tmp_path: Path, written: list[WrittenFile]) -> None:
    read_back(tmp_path, written, Silent())


@pytest.mark.parametrize("at_once", [True, False])
def test_a_file_system_without_direct_reads(
    tmp_path: Path, written: list[WrittenFile], monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    no_direct(monkeypatch, at_once=at_once)
    assert read_back(tmp_path, written, Silent()) is False


@pytest.mark.parametrize("size", SIZES[1:])
@pytest.mark.parametrize("place", [0, -1])
@pytest.mark.parametrize("direct", [True, False])
def test_another_byte(
    tmp_path: Path, written: list[WrittenFile], monkeypatch: pytest.MonkeyPatch, size: int, place: int, direct: bool
) -> None:
    if not direct:
        no_direct(monkeypatch, at_once=True)
    path = tmp_path / f"{size}"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(TargetError, match=f"{path}: other bytes came back"):
        read_back(tmp_path, written, Silent())


@pytest.mark.parametrize("change", [-1, 1])
def test_another_length(tmp_path: Path, written: list[WrittenFile], change: int) -> None:
    os.truncate(tmp_path / "4096", 4096 + change)
    with pytest.raises(TargetError, match="other bytes"):
        read_back(tmp_path, written, Silent())


def test_it_is_on_disk_before_it_is_read(
    tmp_path: Path, written: list[WrittenFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[tuple[str, str]] = []
    fsync, advise = os.fsync, os.posix_fadvise

    def synced(fd: int) -> None:
        done.append(("sync", Path(f"/proc/self/fd/{fd}").readlink().name))
        fsync(fd)

    def dropped(fd: int, *rest: int) -> None:
        done.append(("drop", Path(f"/proc/self/fd/{fd}").readlink().name))
        advise(fd, *rest)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "posix_fadvise", dropped)
    read_back(tmp_path, written, Silent())
    assert done == [(what, f"{size}") for size in SIZES for what in ("sync", "drop")]


def test_a_fault_names_the_file(tmp_path: Path, written: list[WrittenFile], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(fd: int, buffers: Any, at: int) -> int:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "preadv", broken)
    with pytest.raises(OSError, match="Input/output error") as caught:
        read_back(tmp_path, written, Silent())
    assert caught.value.filename == str(tmp_path / "1")
