"""One reader for every format: any box of tensors that lie anyhow in files, and the sums of what was read."""

from __future__ import annotations

import os
import random
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

from vlconv.converters.errors import CorruptError, ReadError
from vlconv.converters.formats import chunks as module
from vlconv.converters.formats.chunks import Chunk, ChunkReader, Extent, dense, row_major
from vlconv.converters.formats.sums.crc import Sums, crc32
from vlconv.converters.tensors.dtypes import ITEMSIZE, storage
from vlconv.converters.tensors.spec import Box, TensorSpec

DTYPES = ("uint8", "bfloat16", "float32", "float64")


def part(array, box):
    return array[tuple(slice(o, o + n) for o, n in zip(box[-2], box[-1], strict=True))]


def cuts(length, random_):
    places = sorted({0, length, *random_.choices(range(length + 1), k=random_.randrange(3))})
    return [(a, b - a) for a, b in pairwise(places)]


def tiled(shape, random_):
    """A random ragged tiling."""
    if not shape:
        return [((), ())]
    return [
        ((o, *offsets), (n, *lengths))
        for o, n in cuts(shape[0], random_)
        for offsets, lengths in tiled(shape[1:], random_)
    ]


def any_box(name, shape, random_):
    offsets = tuple(random_.randrange(n) for n in shape)
    return Box(name, offsets, tuple(random_.randint(1, n - o) for n, o in zip(shape, offsets, strict=True)))


class Store:
    """Random tensors in chunks that lie in random items of one file:
    contiguous, or transposed and within a larger storage.
    """

    def __init__(self, path, random_, tensors=3, views=True):
        self.path, self.random = path, random_
        self.arrays, self.specs, self.chunks, self.extents = {}, {}, {}, []
        self.file = bytearray(random_.randbytes(5))
        for number in range(tensors):
            self._add(f"t{number}", views)
        path.write_bytes(self.file)
        self.located = []

    def _add(self, name, views):
        dtype = self.random.choice(DTYPES)
        shape = tuple(self.random.randint(1, 6) for _ in range(self.random.randint(1, 4)))
        array = np.frombuffer(self.random.randbytes(int(np.prod(shape)) * ITEMSIZE[dtype]), storage(dtype)).reshape(
            shape
        )
        self.arrays[name], self.specs[name], self.chunks[name] = array, TensorSpec(name, shape, dtype), []
        for box in tiled(shape, self.random):
            start, strides = self._item(part(array, box), views and self.random.random() < 0.5)
            self.chunks[name].append(Chunk(*box, len(self.extents) - 1, start, strides))

    def _item(self, piece, view):
        """Put a chunk's numbers in an item of their own."""
        start, strides = 0, None
        if view:
            order = self.random.sample(range(piece.ndim), piece.ndim)
            inner, start = [piece.shape[a] for a in order], self.random.randrange(4)
            wider = row_major((*inner[:1], *(n + self.random.randrange(2) for n in inner[1:])))
            strides = tuple(wider[order.index(a)] for a in range(piece.ndim))
            room = (
                start
                + sum((n - 1) * s for n, s in zip(piece.shape, strides, strict=True))
                + 1
                + self.random.randrange(3)
            )
            data = np.frombuffer(self.random.randbytes(room * piece.itemsize), piece.dtype).copy()
            np.lib.stride_tricks.as_strided(data[start:], piece.shape, [s * piece.itemsize for s in strides])[...] = (
                piece
            )
        else:
            data = np.ascontiguousarray(piece)
        raw = data.tobytes()
        self.extents.append(Extent(str(self.path), len(self.file), len(raw), zlib.crc32(raw)))
        self.file += raw + self.random.randbytes(self.random.randrange(9))
        return start, strides

    def reader(self):
        def locate(item):
            self.located.append(item)
            return self.extents[item]

        return ChunkReader(self.specs, self.chunks, locate)


def read(reader, box):
    out = np.empty(box.lengths, storage(reader.specs[box.name].dtype))
    reader.read_into(box, out)
    return out


class TestBoxes:
    @pytest.mark.parametrize("seed", range(12))
    def test_any_box_into_any_strides(self, tmp_path, seed):
        random_ = random.Random(seed)
        store = Store(tmp_path / "file", random_)
        reader = store.reader()
        reader.check_tiling()
        for _ in range(60):
            name = random_.choice(list(store.specs))
            box = any_box(name, store.specs[name].shape, random_)
            order = random_.sample(range(len(box.lengths)), len(box.lengths))
            steps = [random_.randint(1, 2) for _ in order]
            whole = np.zeros([box.lengths[a] * s for a, s in zip(order, steps, strict=True)], store.arrays[name].dtype)
            view = whole[tuple(slice(None, None, s) for s in steps)].transpose(
                [order.index(a) for a in range(len(order))]
            )
            reader.read_into(box, view)
            assert np.array_equal(view, part(store.arrays[name], box))
            view[...] = 0
            assert not whole.any()  # nothing beside the view was touched
        reader.finish()

    @pytest.mark.parametrize("between", [0, 12, 1 << 16])
    @pytest.mark.parametrize("block", [8, 64, 1000])
    def test_in_small_blocks(self, tmp_path, monkeypatch, block, between):
        monkeypatch.setattr(module, "BLOCK", block)
        monkeypatch.setattr(module, "BETWEEN", between)
        store = Store(tmp_path / "file", random.Random(99), tensors=8)
        reader = store.reader()
        for name, array in store.arrays.items():
            assert np.array_equal(read(reader, Box(name, (0,) * array.ndim, array.shape)), array)
            turned = np.empty(array.shape[::-1], array.dtype)
            reader.read_into(Box(name, (0,) * array.ndim, array.shape), turned.T)
            assert np.array_equal(turned.T, array)
        reader.finish()
        assert reader.checked == len(store.extents)

    @pytest.mark.parametrize(("between", "reads"), [(0, 100), (1 << 16, 1)])
    def test_a_part_of_the_columns_is_read_with_what_lies_between(self, tmp_path, monkeypatch, between, reads):
        """A read for each row would cost far more than the bytes of the other columns."""
        monkeypatch.setattr(module, "BETWEEN", between)
        array = np.arange(100 * 40, dtype=np.uint16).reshape(100, 40)
        path, counted, preadv = tmp_path / "file", [], os.preadv
        path.write_bytes(array.tobytes())
        spec, extent = TensorSpec("t", (100, 40), "bfloat16"), Extent(str(path), 0, array.nbytes)
        reader = ChunkReader({"t": spec}, {"t": [dense(spec, 0)]}, lambda item: extent)
        monkeypatch.setattr(os, "preadv", lambda *asked: counted.append(asked) or preadv(*asked))
        assert np.array_equal(read(reader, Box("t", (0, 20), (100, 20))), array[:, 20:])
        assert len(counted) == reads

    def test_from_several_threads(self, tmp_path):
        random_ = random.Random(7)
        store = Store(tmp_path / "file", random_, tensors=6)
        reader = store.reader()
        boxes = [any_box(name, store.specs[name].shape, random_) for name in store.specs for _ in range(100)]
        with ThreadPoolExecutor(8) as pool:
            for box, found in zip(boxes, pool.map(lambda box: read(reader, box), boxes), strict=True):
                assert np.array_equal(found, part(store.arrays[box.name], box))
        reader.finish()

    def test_each_item_is_located_once_and_only_if_it_is_read(self, tmp_path):
        store = Store(tmp_path / "file", random.Random(3), tensors=4)
        reader = store.reader()
        for _ in range(3):
            read(reader, Box("t1", (0,) * len(store.specs["t1"].shape), store.specs["t1"].shape))
        reader.finish()
        assert sorted(store.located) == [c.item for c in store.chunks["t1"]]

    def test_dense(self):
        assert dense(TensorSpec("a", (2, 3), "float32"), 4) == Chunk((0, 0), (2, 3), 4)
        assert (row_major((2, 3, 4)), row_major((5,)), row_major(())) == ((12, 4, 1), (1,), ())


def one(path, data=bytes(range(96)), crc=None, chunks=None, shape=(6, 4), nbytes=None):
    """A reader of one float32 tensor "t"."""
    path.write_bytes(b"head" + data)
    extent = Extent(str(path), 4, len(data) if nbytes is None else nbytes, crc)
    return ChunkReader(
        {"t": TensorSpec("t", shape, "float32")}, {"t": chunks or [Chunk((0, 0), shape, 0)]}, lambda item: extent
    )


WHOLE = Box("t", (0, 0), (6, 4))


class TestDamage:
    @pytest.mark.parametrize(
        ("chunks", "says"),
        [
            ([Chunk((0, 0), (5, 4), 0)], r"the chunks of t \[6, 4\] leave a gap: 20 of 24"),
            ([Chunk((0, 0), (4, 4), 0), Chunk((3, 0), (3, 4), 0)], r"the chunks of t \[6, 4\] overlap at \[3, 0\]"),
            ([Chunk((0, 0), (7, 4), 0)], "reach outside"),
        ],
    )
    def test_chunks_that_do_not_tile(self, tmp_path, chunks, says):
        with pytest.raises(CorruptError, match=says):
            one(tmp_path / "f", chunks=chunks).check_tiling()

    def test_a_gap_that_nobody_looked_for(self, tmp_path):
        with pytest.raises(CorruptError, match="t: 20 of 24 elements of a box are in the file"):
            read(one(tmp_path / "f", chunks=[Chunk((0, 0), (5, 4), 0)]), WHOLE)

    def test_a_file_that_ends_early(self, tmp_path):
        reader = one(tmp_path / "f")
        with (tmp_path / "f").open("r+b") as file:
            file.truncate(50)
        with pytest.raises(CorruptError, match=r"f: ends early, at byte 50"):
            read(reader, WHOLE)

    def test_a_file_that_is_gone(self, tmp_path):
        reader = one(tmp_path / "f")
        (tmp_path / "f").unlink()
        with pytest.raises(ReadError, match=r"f cannot be read: No such file"):
            read(reader, WHOLE)

    def test_an_item_shorter_than_its_tensor(self, tmp_path):
        with pytest.raises(CorruptError, match="a tensor reaches beyond its item"):
            read(one(tmp_path / "f", nbytes=92), WHOLE)

    @pytest.mark.parametrize("bit", [0, 7, 300, 767])
    @pytest.mark.parametrize(
        "box", [WHOLE, Box("t", (1, 0), (2, 4)), Box("t", (5, 3), (1, 1))], ids=["all", "some rows", "one number"]
    )
    def test_a_flipped_bit_anywhere_in_an_item_of_which_something_was_read(self, tmp_path, bit, box):
        data = bytearray(range(96))
        crc = zlib.crc32(data)
        data[bit // 8] ^= 1 << bit % 8
        reader = one(tmp_path / "f", bytes(data), crc)
        read(reader, box)
        with pytest.raises(CorruptError) as caught:
            reader.finish()
        assert (
            f"{tmp_path / 'f'}: bytes 4 to 100 are damaged: CRC-32" in caught.value.what
            and f"states {crc:08x}" in caught.value.what
        )

    @pytest.mark.parametrize("crc", [None, 0])
    def test_no_sum_is_counted(self, tmp_path, crc):
        reader = one(tmp_path / "f", crc=crc)
        read(reader, WHOLE)
        reader.finish()
        assert (reader.checked, reader.unsummed) == (0, 1)


class TestSums:
    """The sum of an item, whatever the runs it was read in."""

    def pread(self, data):
        def into(extent, at, out):
            self.reread.append((at, len(out)))
            out[:] = data[extent.offset + at : extent.offset + at + len(out)]

        self.reread = []
        return into

    def runs(self, random_, size):
        kind = random_.randrange(4)
        spans = (
            cuts(size, random_)
            if kind < 2
            else [(s := random_.randrange(size), random_.randint(1, size - s)) for _ in range(random_.randint(1, 6))]
        )
        if kind == 1:  # with gaps
            spans = random_.sample(spans, random_.randint(1, len(spans)))
        return random_.sample(spans, len(spans))

    def test_runs_in_any_order_with_gaps_and_overlaps(self):
        random_ = random.Random(0)
        for _ in range(2000):
            size = random_.randint(1, 40)
            data = random_.randbytes(3 + size)
            sums = Sums()
            for start, n in self.runs(random_, size):
                sums.add(0, start, memoryview(data)[3 + start : 3 + start + n])
            right = Extent("f", 3, size, zlib.crc32(data[3:]))
            sums.check(0, right, self.pread(data))
            assert not sums.items()

    def test_every_wrong_bit_is_seen_in_what_was_read_and_in_what_was_not(self):
        random_ = random.Random(1)
        for _ in range(1000):
            size = random_.randint(1, 40)
            data = bytearray(random_.randbytes(size))
            extent = Extent("f", 0, size, zlib.crc32(data))
            data[random_.randrange(size)] ^= 1 << random_.randrange(8)
            sums = Sums()
            for start, n in self.runs(random_, size):
                sums.add(0, start, memoryview(bytes(data))[start : start + n])
            with pytest.raises(CorruptError):
                sums.check(0, extent, self.pread(bytes(data)))

    @pytest.mark.parametrize("which", [0, 1, 2])
    @pytest.mark.parametrize("step", [10, 7, 100])
    def test_every_reading_is_checked(self, which, step):
        """Read three times, and given bad bytes in one of them: what was made of those is wrong."""
        data = bytes(range(100))
        for byte in range(100):
            sums = Sums()
            for reading in range(3):
                given = bytearray(data)
                given[byte] ^= 1 if reading == which else 0
                for start in range(0, 100, step + reading):
                    sums.add(0, start, memoryview(given)[start : start + step + reading])
            with pytest.raises(CorruptError):
                sums.check(0, Extent("f", 0, 100, zlib.crc32(data)), self.pread(data))

    def test_readings_of_the_same_runs_cost_one(self):
        sums, data = Sums(), bytes(range(100))
        for start in (0, 50, 0, 50, 0):
            sums.add(0, start, memoryview(data)[start : start + 20])
        assert len(sums.changes()[0]) == 2

    def test_nothing_is_read_twice_but_the_gaps(self):
        data = bytes(range(100))
        sums = Sums()
        for start, stop in ((60, 80), (10, 20), (20, 40), (0, 10)):
            sums.add(5, start, memoryview(data)[start:stop])
        sums.check(5, Extent("f", 0, 100, zlib.crc32(data)), self.pread(data))
        assert self.reread == [(40, 20), (80, 20)]

    def test_an_item_read_in_order_costs_one_entry(self):
        sums = Sums()
        for start in range(0, 100, 10):
            sums.add(0, start, memoryview(bytes(10)))
        assert len(sums._runs[0].by_start) == len(sums._runs[0].starts) == 1

    def test_items_are_apart(self):
        a, b = b"abc", b"xyz"
        sums = Sums()
        sums.add(1, 0, memoryview(a))
        sums.add(2, 0, memoryview(b))
        assert sums.items() == [1, 2]
        sums.check(1, Extent("f", 0, 3, zlib.crc32(a)), self.pread(a))
        assert sums.items() == [2]

    def test_crc32_is_zlibs(self):
        data = random.Random(2).randbytes(1000)
        assert crc32(data) == zlib.crc32(data) and crc32(data, 77) == zlib.crc32(data, 77)
