"""An open output file: every byte at its place or an error that names the file, and nothing after its close."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vlconv.converters.errors import TargetError
from vlconv.converters.output.writing import open_file
from vlconv.converters.output.writing.buffers import Buffers
from vlconv.converters.output.writing.open_file import OpenFile

DATA = bytes(range(1, 251))


@pytest.fixture(params=[7, 250, 1 << 20])
def write_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_file, "WRITE", request.param)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.fixture
def out(path: Path) -> Iterator[OpenFile]:
    out = OpenFile(path, 300)
    yield out
    out.close()


RUNS = [(270, memoryview(b"end")), (3, memoryview(DATA))]
WRITTEN = b"\0" * 3 + DATA + b"\0" * 17 + b"end" + b"\0" * 27


@pytest.mark.usefixtures("write_size")
class TestWrite:
    def test_runs_lie_at_their_offsets(self, out: OpenFile, path: Path) -> None:
        out.write(RUNS)
        assert path.read_bytes() == WRITTEN

    @pytest.mark.parametrize("most", [1, 5, 249])
    def test_a_short_write_is_continued(
        self, out: OpenFile, path: Path, monkeypatch: pytest.MonkeyPatch, most: int
    ) -> None:
        pwrite = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:most], at))
        out.write(RUNS)
        assert path.read_bytes() == WRITTEN

    def test_a_write_of_nothing_is_an_error(self, out: OpenFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """As some network shares answer when they are full; asking again would go on for ever."""
        pwrite, calls = os.pwrite, iter(range(10))
        monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:2], at) if not next(calls) else 0)
        with pytest.raises(TargetError) as caught:
            out.write([(3, memoryview(DATA[:6]))])
        assert caught.value.what.startswith(f"{path}: of 4 bytes at byte 5 the system wrote none")
        assert caught.value.hint

    def test_an_error_names_the_file(self, out: OpenFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(fd: int, data: memoryview, at: int) -> int:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "pwrite", broken)
        with pytest.raises(OSError, match="Input/output error") as caught:
            out.write(RUNS)
        assert caught.value.filename == str(path)


class TestPastTheSystemsMemory:
    """direct=True: the same bytes, wherever runs begin and end, and whether or not the file system knows the way."""

    SIZE = 1 << 18
    RUNS = ((0, 70_000), (70_003, 90_001), (180_224, 65_536), (245_761, 16_383))

    @pytest.fixture
    def data(self) -> bytes:
        return random.Random(0).randbytes(self.SIZE)

    def write(self, path: Path, data: bytes) -> None:
        out, buffers = OpenFile(path, self.SIZE, direct=True), Buffers(1 << 16)
        for first, nbytes in self.RUNS:
            buffer = buffers.at(first, nbytes)
            buffer[:] = data[first : first + nbytes]
            out.write([(first, buffer)])
        out.close()

    def expected(self, data: bytes) -> bytes:
        found = bytearray(self.SIZE)
        for first, nbytes in self.RUNS:
            found[first : first + nbytes] = data[first : first + nbytes]
        return bytes(found)

    def test_every_byte(self, path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        pwrite, past = os.pwrite, []

        def watched(fd: int, piece: memoryview, at: int) -> int:
            if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                past.append((at, len(piece)))
            return pwrite(fd, piece, at)

        monkeypatch.setattr(os, "pwrite", watched)
        self.write(path, data)
        assert path.read_bytes() == self.expected(data)
        assert past == [(0, 69_632), (73_728, 86_016), (180_224, 65_536)]

    @pytest.mark.parametrize("where", ["open", "pwrite"])
    def test_a_file_system_that_knows_no_such_way(
        self, path: Path, data: bytes, where: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = getattr(os, where)

        def refuses(first: int | Path, *rest: Any) -> int:
            if (rest[0] if where == "open" else fcntl.fcntl(first, fcntl.F_GETFL)) & os.O_DIRECT:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            return int(call(first, *rest))

        monkeypatch.setattr(os, where, refuses)
        self.write(path, data)
        assert path.read_bytes() == self.expected(data)

    def test_a_short_write_is_continued(self, path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        """As at the end of a quota: in the midst of a page, where the rest cannot pass the memory by."""
        pwrite = os.pwrite

        def short(fd: int, piece: memoryview, at: int) -> int:
            return pwrite(fd, piece[:4096], at) if len(piece) > 4096 else pwrite(fd, piece, at)

        monkeypatch.setattr(os, "pwrite", short)
        self.write(path, data)
        assert path.read_bytes() == self.expected(data)

    def test_a_full_disk_is_told(self, path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(fd: int, piece: memoryview, at: int) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space") as caught:
            self.write(path, data)
        assert caught.value.filename == str(path)


def test_it_has_its_size_from_the_start(out: OpenFile, path: Path) -> None:
    assert path.stat().st_size == 300


@pytest.mark.parametrize("size", [300, None], ids=["new", "there"])
def test_nothing_can_be_read_through_it(path: Path, size: int | None) -> None:
    """A network file system would read pages of which a part is written, and write them whole."""
    if size is None:
        path.write_bytes(b"mine")
    out = OpenFile(path, size)
    assert fcntl.fcntl(out._fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_WRONLY
    out.write([(1, memoryview(b"x"))])
    out.close()
    assert path.read_bytes() == (b"mxne" if size is None else b"\0x" + bytes(298))


def test_a_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"mine")
    path.symlink_to("other")
    with pytest.raises(OSError, match="symbolic links"):
        OpenFile(path, None)


def test_a_size_that_cannot_be_names_the_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(Path("/proc/self/fd").iterdir())

    def too_large(fd: int, size: int) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(os, "truncate", too_large)
    with pytest.raises(OSError, match="too large") as caught:
        OpenFile(path, 300)
    assert caught.value.filename == str(path)
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_what_is_there_stays(path: Path) -> None:
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        OpenFile(path, 300)
    assert path.read_bytes() == b"mine"


def test_a_second_close_closes_no_file_of_another(path: Path, tmp_path: Path) -> None:
    """The thread that ends a file and the one that ends the run may both close it."""
    out = OpenFile(path, 300, direct=True)
    out.close()
    with (tmp_path / "stranger").open("wb") as stranger, (tmp_path / "other").open("wb") as other:
        out.close()
        stranger.write(b"mine")
        other.write(b"mine, too")
    assert (tmp_path / "stranger").read_bytes() == b"mine"


def test_nothing_is_written_after_the_close(path: Path, tmp_path: Path) -> None:
    out = OpenFile(path, 300)
    out.close()
    with (tmp_path / "stranger").open("wb"), pytest.raises(ValueError, match="closed"):  # it has the same number now
        out.write([(0, memoryview(DATA))])
    assert (tmp_path / "stranger").read_bytes() == b""
    assert path.read_bytes() == bytes(300)
