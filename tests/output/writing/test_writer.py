"""The loop: windows cover every byte once and stay small, whatever their limit; what is written is what was read."""

from __future__ import annotations

import os
import random
import threading
import time
import zlib
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
import pytest
import torch
from memory import Memory, bits

from vlconv.converters import Silent
from vlconv.converters.errors import CorruptError
from vlconv.converters.formats.output_file import OutFile, Piece, WrittenFile
from vlconv.converters.output.writing.windows import windows
from vlconv.converters.output.writing.writer import side_by_side, write_files
from vlconv.converters.tensors.dtypes import ITEMSIZE
from vlconv.converters.tensors.spec import Box, TensorSpec, whole
from vlconv.converters.tensors.tiling import cut
from vlconv.converters.workers import Workers

WRITING = "vlconv.converters.output.writing"

SHAPES = [(), (1,), (13,), (4, 5), (1, 1, 7), (3, 1, 4), (2, 3, 4, 5), (9, 2)]


def flat(spec, box):
    """The flat indexes of a box's elements in its tensor, in row-major order of the box."""
    index = np.arange(prod(spec.shape)).reshape(spec.shape)
    return index[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))].reshape(-1)


class TestCut:
    @pytest.mark.parametrize("shape", SHAPES)
    @pytest.mark.parametrize("limit", [1, 8, 20, 64, 10**6])
    def test_parts_are_small_contiguous_and_all_there(self, shape, limit):
        spec = TensorSpec("a", shape, "float32")
        at = 100
        for box, offset in cut(whole(spec), 100, 4, limit):
            inside = flat(spec, box)
            assert offset == at and (np.diff(inside) == 1).all() and 4 * int(inside[0]) == offset - 100
            assert box.size * 4 <= max(limit, 4)
            at += box.size * 4
        assert at == 100 + spec.nbytes

    def test_of_a_part(self):
        spec = TensorSpec("a", (6, 5, 4), "bfloat16")
        box = Box("a", (2, 1, 0), (3, 2, 4))
        parts = list(cut(box, 0, 2, 20))
        assert np.array_equal(np.concatenate([flat(spec, part) for part, _ in parts]), flat(spec, box))
        assert [(part.offsets, part.lengths, offset) for part, offset in parts] == [
            ((i, 1, 0), (1, 2, 4), 16 * (i - 2)) for i in (2, 3, 4)
        ]

    def test_no_more_than_needed(self):
        assert list(cut(Box("a", (0, 0), (8, 2)), 0, 4, 64)) == [(Box("a", (0, 0), (8, 2)), 0)]
        assert [box.lengths for box, _ in cut(Box("a", (0, 0), (8, 2)), 0, 4, 24)] == [(3, 2), (3, 2), (2, 2)]


def reach(first, last):
    """Bytes of the file from one part to the end of another."""
    return last.offset + last.nbytes - first.offset


class TestWindows:
    @pytest.mark.parametrize("limit", [1, 16, 50, 200, 10**6])
    def test_cover_every_byte_once_in_order(self, limit):
        random_ = random.Random(limit)
        specs = [
            TensorSpec(f"t{i}", random_.choice(SHAPES), random_.choice(["bfloat16", "float32", "float64"]))
            for i in range(20)
        ]
        pieces, at = [], 7
        for spec in specs:
            pieces.append(Piece(whole(spec), at))
            at += spec.nbytes + random_.choice([0, 3])
        itemsizes = [ITEMSIZE[spec.dtype] for spec in specs]
        found = list(windows(pieces, itemsizes, limit))
        parts = [part for window in found for part in window]
        for number, spec in enumerate(specs):
            mine = [part for part in parts if part.piece == number]
            assert np.array_equal(np.concatenate([flat(spec, part.box) for part in mine]), np.arange(prod(spec.shape)))
            place = pieces[number].offset
            for part in mine:
                assert (part.offset, part.nbytes) == (place, part.box.size * itemsizes[number])
                place += part.nbytes
        assert [part.offset for part in parts] == sorted(part.offset for part in parts)
        assert all(window and (reach(window[0], window[-1]) <= limit or len(window) == 1) for window in found)
        # Greedy: what begins a window did not fit into the one before.
        for before, after in pairwise(found):
            assert reach(before[0], after[0]) > limit

    def test_nothing(self):
        assert list(windows([], [], 1)) == []


class Watch(Silent):
    def __init__(self):
        self.seen = []

    def progress(self, done, total):
        self.seen.append((done, total))


@pytest.fixture
def model():
    generator = torch.Generator().manual_seed(0)
    shapes = {f"t{i}": shape for i, shape in enumerate([(40, 30), (7,), (3, 4, 5), (1,), (200,)])}
    return Memory(
        {
            n: torch.randn(s, generator=generator).to(torch.bfloat16 if i % 2 else torch.float32)
            for i, (n, s) in enumerate(shapes.items())
        }
    )


def planned(reader, names, name="a/file", seal=None):
    """Pieces with a few bytes between them, and a literal at either end."""
    pieces, at = [], 4
    for n in names:
        pieces.append(Piece(whole(reader.specs[n]), at))
        at += reader.specs[n].nbytes + 3
    return OutFile(name, at + 4, pieces, [(0, b"head"), (at, b"tail")], seal)


def written(reader, file):
    """The bytes a file must have."""
    data = bytearray(file.size)
    for piece in file.pieces:
        raw = reader._tensors[piece.box.name].tobytes()
        data[piece.offset : piece.offset + len(raw)] = raw
    for offset, literal in file.literals:
        data[offset : offset + len(literal)] = literal
    return bytes(data)


@pytest.fixture(params=[16 << 20, 512, 60, 8], ids=["one window", "some", "many", "one number each"])
def window(request, monkeypatch):
    monkeypatch.setattr(
        f"{WRITING}.file_writer.windows",
        lambda pieces, itemsizes, limit: windows(pieces, list(itemsizes), request.param),
    )


@pytest.mark.parametrize("threads", [1, 4])
class TestFiles:
    def test_every_byte(self, tmp_path, model, window, threads):
        files = [
            planned(model, ["t0", "t1"], "a/b/one"),
            planned(model, ["t4", "t2", "t3"], "two"),
            OutFile("three", 3, literals=[(0, b"abc")]),
        ]
        write_files(model, files, tmp_path, Workers(threads), Silent())
        for file in files:
            assert (tmp_path / file.name).read_bytes() == written(model, file)

    def test_sums_of_the_pieces(self, tmp_path, model, window, threads):
        names, given = ["t0", "t3", "t4"], []

        def seal(sums):
            given.extend(sums)
            yield gap, b"EA"

        file, gap = planned(model, names, seal=seal), 4 + model.specs["t0"].nbytes
        told = write_files(model, [file], tmp_path, Workers(threads), Silent())
        assert given == [zlib.crc32(bits_of(model, n)) for n in names]
        data = (tmp_path / file.name).read_bytes()
        assert data == written(model, file)[:gap] + b"EA" + written(model, file)[gap + 2 :]
        assert told == [WrittenFile(file.name, len(data), zlib.crc32(data), tuple(given))]

    def test_progress(self, tmp_path, model, window, threads):
        watch = Watch()
        write_files(
            model, [planned(model, ["t0"], "one"), planned(model, ["t1"], "two")], tmp_path, Workers(threads), watch
        )
        total = model.specs["t0"].nbytes + model.specs["t1"].nbytes
        assert watch.seen == sorted(watch.seen) and watch.seen[-1] == (total, total)

    def test_an_error_stops_it(self, tmp_path, model, window, threads):
        asked = []

        def fails(box, out):
            asked.append(box)
            raise CorruptError("f: damaged")

        model.read_into = fails
        with pytest.raises(CorruptError, match="f: damaged"):
            write_files(
                model,
                [planned(model, ["t0"], "one"), planned(model, ["t1"], "two")],
                tmp_path,
                Workers(threads),
                Silent(),
            )
        assert len(asked) <= 3 * threads + 1

    def test_files_are_told_of_once_finished(self, tmp_path, model, window, threads):
        files, told = (
            [planned(model, ["t0"], "one"), planned(model, ["t1"], "two"), planned(model, ["t4"], "three")],
            [],
        )

        def note(file):
            assert (tmp_path / file.name).read_bytes() == written(
                model, files[[f.name for f in files].index(file.name)]
            )
            told.append(file)

        found = write_files(model, files, tmp_path, Workers(threads), Silent(), note=note)
        assert [file.name for file in found] == ["one", "two", "three"]
        assert sorted(told) == sorted(found)

    def test_what_only_the_end_shows(self, tmp_path, model, window, threads):
        def fails():
            raise CorruptError("f: bytes are damaged")

        model.finish = fails
        with pytest.raises(CorruptError, match="bytes are damaged"):
            write_files(model, [planned(model, ["t0"])], tmp_path, Workers(threads), Silent())

    def test_a_file_that_is_there_already(self, tmp_path, model, window, threads):
        (tmp_path / "one").write_bytes(b"mine")
        with pytest.raises(FileExistsError):
            write_files(model, [planned(model, ["t0"], "one")], tmp_path, Workers(threads), Silent())
        assert (tmp_path / "one").read_bytes() == b"mine"


class TestSideBySide:
    """As many files at a time as are allowed: those are unfinished when the run is killed."""

    @pytest.mark.parametrize(
        ("lanes", "order"), [(1, "aaabcccdd"), (2, "abaaccdcd"), (3, "abcacadcd"), (9, "abcdacdac")]
    )
    def test_in_turn(self, lanes, order):
        assert "".join(side_by_side(map(iter, ["aaa", "b", "ccc", "dd"]), lanes)) == order

    def test_a_file_is_begun_when_its_turn_comes(self):
        begun = []

        def jobs(name):
            begun.append(name)
            yield from name * 2

        for job, expected in zip(side_by_side(map(jobs, "abc"), 2), ["a", "ab", "ab", "ab", "abc", "abc"], strict=True):
            assert job in begun and "".join(begun) == expected

    @pytest.mark.parametrize(
        ("direct", "threads", "lanes"), [(False, 1, 1), (False, 16, 8), (True, 1, 1), (True, 16, 2)]
    )
    def test_how_many(self, tmp_path, model, monkeypatch, direct, threads, lanes):
        asked = []
        monkeypatch.setattr(f"{WRITING}.writer.takes_direct", lambda root: direct)
        monkeypatch.setattr(
            f"{WRITING}.writer.side_by_side", lambda files, n: asked.append(n) or side_by_side(files, n)
        )
        write_files(model, [planned(model, ["t0"], "one")], tmp_path, Workers(threads), Silent())
        assert asked == [lanes]


def bits_of(model, name):
    return model._tensors[name].tobytes()


def test_memory_holds_what_torch_has(model):
    """The helper these tests stand on."""
    tensor = torch.randn(3).bfloat16()
    assert Memory({"a": tensor})._tensors["a"].tobytes() == bits(tensor).tobytes()


class Stranger:
    """A file of somebody else, opened as soon as the writer closes its own, so that it takes the number."""

    def __init__(self, folder):
        self.path = folder / "stranger"
        self.path.write_bytes(b"mine")
        self._watched = self._number = self._file = None

    def watch(self, path):
        """From now on; the file is open."""
        self._watched = str(path)
        self._number = next(n for n in Path("/proc/self/fd").iterdir() if link(n) == self._watched)

    def take_over(self, seconds):
        """Wait so long for the file to be closed, and take its number if it is."""
        end = time.monotonic() + seconds
        while link(self._number) == self._watched and time.monotonic() < end:
            time.sleep(0.01)
        if link(self._number) != self._watched:
            self._file = self.path.open("r+b")
            assert self._file.fileno() == int(self._number.name)

    def read(self):
        if self._file:
            self._file.close()
        return self.path.read_bytes()


def link(number):
    try:
        return str(number.readlink())
    except OSError:
        return ""


class TestAClosedFile:
    """Whatever ends the loop, no thread writes to the number of a closed file: it may be a stranger's by then."""

    @pytest.fixture(autouse=True)
    def two_windows(self, monkeypatch):
        monkeypatch.setattr(
            f"{WRITING}.file_writer.windows",
            lambda pieces, itemsizes, limit: windows(pieces, itemsizes, 2400),
        )

    def run(self, model, path, observer, meanwhile):
        """Write in another thread, do something meanwhile, and return what it ended with."""
        ended = []

        def target():
            try:
                write_files(model, [planned(model, ["t0"], path.name)], path.parent, Workers(2), observer)
            except BaseException as fault:
                ended.append(fault)

        thread = threading.Thread(target=target)
        thread.start()
        try:
            meanwhile()
        finally:
            thread.join(30)
        assert not thread.is_alive()
        return ended[0]

    @pytest.mark.parametrize("fault", [CorruptError("f: damaged"), KeyboardInterrupt()], ids=["fault", "Ctrl-C"])
    def test_a_thread_that_still_reads(self, tmp_path, model, fault):
        """The other window is damaged, or the main thread is interrupted, while one is still being read."""
        stranger, reading, fail, go_on = Stranger(tmp_path), threading.Event(), threading.Event(), threading.Event()
        read = model.read_into

        def read_into(box, out):
            if box.offsets == (0, 0):
                reading.set()
                assert go_on.wait(30)
            else:
                assert fail.wait(30)
                if isinstance(fault, CorruptError):
                    raise fault
            read(box, out)

        class Interrupting(Silent):
            def progress(self, done, total):
                if isinstance(fault, KeyboardInterrupt) and fail.is_set():
                    raise fault

        def meanwhile():
            assert reading.wait(30)
            stranger.watch(tmp_path / "one")
            fail.set()
            stranger.take_over(1)
            go_on.set()

        model.read_into = read_into
        assert self.run(model, tmp_path / "one", Interrupting(), meanwhile) is fault
        assert stranger.read() == b"mine"

    def test_a_thread_that_is_writing(self, tmp_path, model, monkeypatch):
        """The other window is damaged while one is inside its write: the file stays open until that write is over."""
        stranger, writing, fail, go_on = Stranger(tmp_path), threading.Event(), threading.Event(), threading.Event()
        read, pwrite = model.read_into, os.pwrite

        def read_into(box, out):
            if box.offsets != (0, 0):
                assert fail.wait(30)
                raise CorruptError("f: damaged")
            read(box, out)

        def slow(fd, data, offset):
            writing.set()
            assert go_on.wait(30)
            return pwrite(fd, data, offset)

        def meanwhile():
            assert writing.wait(30)
            stranger.watch(tmp_path / "one")
            fail.set()
            stranger.take_over(1)
            go_on.set()

        model.read_into = read_into
        monkeypatch.setattr(os, "pwrite", slow)
        assert isinstance(self.run(model, tmp_path / "one", Silent(), meanwhile), CorruptError)
        assert stranger.read() == b"mine"
        assert (tmp_path / "one").read_bytes()[4:2404] == bits_of(model, "t0")[:2400]
