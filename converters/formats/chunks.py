"""One reader for every file format: a format is parsed into chunks, and boxes are read from chunks.

A chunk says: this box of that tensor lies in that item, from that element on, with those strides. An item is a run of
bytes in a file, with a CRC-32
where the format keeps one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from math import prod
from operator import mul, sub
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CorruptError, shown, shown_path
from ..tensors.dtypes import ITEMSIZE
from ..tensors.spec import Box, Shape, TensorSpec
from ..tensors.tiling import BoxIndex, part
from .holes import Holes
from .open_files import OpenFiles
from .sums.crc import Run, Sums

if TYPE_CHECKING:
    from ..tensors.spec import Array

BLOCK = 1 << 20
"""Bytes per read: small enough to stay in cache for the checksum and the copy that follow."""


BETWEEN = 64 << 10
"""Bytes between two runs that are sooner read than passed over: a read by itself takes as long."""

TRANSPOSED = 16
"""Rows that are transposed at a time: 64 take twice the time, with experts' rows of 1536 and 2048 elements."""


class Chunk(NamedTuple):
    """Where a box of a tensor lies."""

    offsets: Shape
    lengths: Shape
    item: int
    start: int = 0  # of the first element, in elements from the item's begin
    strides: Shape | None = None  # in elements; None: row-major


class Extent(NamedTuple):
    """Where an item's bytes lie."""

    path: str
    offset: int
    nbytes: int
    crc: int | None = None  # CRC-32 of the bytes; None: the format keeps none; 0: torch was told not to compute it


class ChunkReader:
    """Reads boxes of tensors that lie in chunks.

    Args:
        specs: every tensor.
        chunks: the chunks of each, tiling it (see `check_tiling`).
        locate: item number -> Extent; may open the file, and raise SourceError. Called once per item that is read.
        files: those that `locate` holds open, to be shared.
        holes: found where the tensors lie.
    """

    def __init__(
        self,
        specs: Mapping[str, TensorSpec],
        chunks: Mapping[str, Sequence[Chunk]],
        locate: Callable[[int], Extent],
        files: OpenFiles | None = None,
        holes: Sequence[Holes] = (),
    ) -> None:
        self.specs = dict(specs)
        self._chunks = chunks
        self._locate = locate
        self._files = files or OpenFiles()
        self.holes = holes
        self._extents: dict[int, Extent] = {}
        self._begin()

    def _begin(self) -> None:
        """Nothing was read so far."""
        self._index: dict[str, BoxIndex] = {}
        self.sums = Sums()
        self._earlier = Sums()  # of a run that was ended, whose files are kept
        self._checked: set[int] = set()
        self._reported: set[int] = set()
        self._scratch = threading.local()
        self._known = set(self._extents)  # when it came to this process

    def __getstate__(self) -> dict[str, Any]:
        """For another process, which tells with `hand_over` what it has read."""
        kept = ("specs", "_chunks", "_locate", "_files", "holes")
        return {"_extents": dict(self._extents)} | {name: self.__dict__[name] for name in kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._begin()

    def check_tiling(self) -> None:
        """Raises CorruptError unless the chunks of each tensor cover it exactly once."""
        from .columns import fault_of

        for name, spec in self.specs.items():
            fault = fault_of(self._chunks[name], spec.shape)
            if fault:
                raise CorruptError(
                    f"the chunks of {shown(name)} {list(spec.shape)} {fault}",
                    "The checkpoint is incomplete or damaged: save it again.",
                )

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        chunks = self._chunks[box.name]
        index = self._index.get(box.name)
        if index is None:
            index = self._index[box.name] = BoxIndex([(c.offsets, c.lengths) for c in chunks])
        found = 0
        for at, offsets, lengths in index.overlapping(box.offsets, box.lengths):
            chunk = chunks[at]
            strides = chunk.strides or row_major(chunk.lengths)
            start = chunk.start + sum(map(mul, map(sub, offsets, chunk.offsets), strides))
            self._copy(chunk.item, start, lengths, strides, part(out, box, offsets, lengths))
            found += prod(lengths)
        if found != box.size:
            raise CorruptError(
                f"{shown(box.name)}: {found} of {box.size} elements of a box are in the file",
                "The checkpoint is incomplete: save it again.",
            )

    def sums_by_row(self, name: str) -> list[object]:
        """For each row of a tensor's first axis the checksums of its numbers, as the files state them.

        [] where they state none, or an item is more than a part of one row. Rows of one sum are equal; those of several
        need not differ, if they lie in other parts.
        """
        rows: dict[int, list[tuple[object, ...]]] = {}
        for chunk in self._chunks[name]:
            extent = self._extent(chunk.item)
            size = prod(chunk.lengths) * ITEMSIZE[self.specs[name].dtype]
            if not extent.crc or chunk.lengths[0] != 1 or chunk.start or extent.nbytes != size:
                return []
            rows.setdefault(chunk.offsets[0], []).append((chunk.offsets[1:], chunk.lengths[1:], extent.crc))
        return [tuple(sorted(rows.get(row, ()))) for row in range(self.specs[name].shape[0])]

    def finish(self) -> None:
        """Check the CRC of every item that was read, reading for the sum alone what nobody asked for.

        What an earlier run read is checked by itself: each of the two may have been given bad bytes.
        """
        for sums in (self._earlier, self.sums):
            for item in sums.items():
                sums.check(item, self._extent(item), self._pread)
                self._checked.add(item)

    def read_since(self) -> dict[int, list[Run]]:
        """What was read since the last call: item -> its runs; none of an item whose file states no checksum."""
        plain = {item for item, extent in list(self._extents.items()) if not extent.crc} - self._reported
        self._reported |= plain
        return {item: [] for item in plain} | self.sums.changes()

    def read_earlier(self, runs: Mapping[int, Sequence[Run]]) -> None:
        """Count in what an earlier run read of the same files, as `read_since` told it."""
        self._earlier = Sums({item: found for item, found in runs.items() if found})
        for item in runs:
            self._extent(item)

    def hand_over(self) -> list[tuple[int, Extent, list[Run]]]:
        """What this process has read since the last call, for `take_over` in the one that the reader came from."""
        runs, located = self.sums.drain(), self._extents.keys() - self._known
        self._known |= located
        return [(item, self._extents[item], runs.get(item, [])) for item in sorted(runs.keys() | located)]

    def take_over(self, found: Sequence[tuple[int, Extent, Sequence[Run]]]) -> None:
        """Count in what another process has read."""
        for item, extent, runs in found:
            self._extents.setdefault(item, extent)
            self.sums.put(item, runs)

    @property
    def checked(self) -> int:
        """Items whose checksum was found right; known after `finish`."""
        return len(self._checked)

    @property
    def unsummed(self) -> int:
        """Items that were read and whose file states no checksum."""
        return sum(not extent.crc for extent in self._extents.values())

    def _extent(self, item: int) -> Extent:
        extent = self._extents.get(item)
        if extent is None:
            extent = self._extents[item] = self._locate(item)
        return extent

    def _copy(self, item: int, start: int, lengths: Shape, strides: Shape, view: Array) -> None:
        """Copy a strided box of an item: as few contiguous runs as its strides allow."""
        if strides != row_major(lengths) and len(lengths) > 1:
            order = sorted(range(len(lengths)), key=lambda a: -strides[a])
            if order != list(range(len(lengths))):
                view, lengths, strides = (
                    view.transpose(order),
                    tuple(lengths[a] for a in order),
                    tuple(strides[a] for a in order),
                )
        if _is_run(lengths, strides):
            self._run(item, start * view.itemsize, lengths, view)
        elif _is_run(lengths[1:], strides[1:]) and (strides[0] - prod(lengths[1:])) * view.itemsize <= BETWEEN:
            self._rows(item, start, lengths, strides, view)
        else:
            for i in range(lengths[0]):
                self._copy(item, start + i * strides[0], lengths[1:], strides[1:], view[i])

    def _run(self, item: int, at: int, lengths: Shape, view: Array) -> None:
        """Copy one contiguous run of an item, of shape `lengths`, to a view of any strides."""
        if view.flags.c_contiguous:
            self._pull(item, at, memoryview(view.reshape(-1)).cast("B"))
            return
        row = prod(lengths[1:]) * view.itemsize
        if (row > BLOCK and len(lengths) > 1) or lengths[0] == 1:
            for i in range(lengths[0]):
                self._run(item, at + i * row, lengths[1:], view[i])
            return
        step = max(1, min(BLOCK // row, lengths[0]))
        for first in range(0, lengths[0], step):
            rows = min(step, lengths[0] - first)
            scratch = self._buffer(rows * row)
            self._pull(item, at + first * row, scratch)
            _spread(_as_array(scratch, view.dtype.str, (rows, *lengths[1:])), view[first : first + rows])

    def _rows(self, item: int, start: int, lengths: Shape, strides: Shape, view: Array) -> None:
        """Copy runs that lie close to each other in an item, as the rows of a part of its columns do.

        What lies between them is read along.
        """
        import numpy as np

        size, apart = view.itemsize, strides[0] * view.itemsize
        row = prod(lengths[1:]) * size
        step = max(1, (BLOCK - row) // apart + 1)
        for first in range(0, lengths[0], step):
            rows = min(step, lengths[0] - first)
            scratch = self._buffer((rows - 1) * apart + row)
            self._pull(item, start * size + first * apart, scratch)
            steps = tuple(stride * size for stride in strides)
            _spread(np.ndarray((rows, *lengths[1:]), view.dtype, scratch, strides=steps), view[first : first + rows])

    def _pull(self, item: int, at: int, out: memoryview) -> None:
        """Read bytes of an item, summing them while they are hot."""
        extent = self._extent(item)
        if at + len(out) > extent.nbytes:
            raise CorruptError(
                f"{shown_path(extent.path)}: a tensor reaches beyond its item", "The checkpoint is damaged."
            )
        with self._files.held(extent.path) as fd:
            for first in range(0, len(out), BLOCK):
                piece = out[first : first + BLOCK]
                _fill(fd, extent, at + first, piece)
                if extent.crc:
                    self.sums.add(item, at + first, piece)

    def _pread(self, extent: Extent, at: int, out: memoryview) -> None:
        with self._files.held(extent.path) as fd:
            _fill(fd, extent, at, out)

    def _buffer(self, nbytes: int) -> memoryview:
        held: memoryview | None = getattr(self._scratch, "held", None)
        if held is None or len(held) < nbytes:
            held = self._scratch.held = memoryview(bytearray(max(nbytes, BLOCK)))
        return held[:nbytes]


def _fill(fd: int, extent: Extent, at: int, out: memoryview) -> None:
    """Read bytes of an item whose file is open."""
    done, begin = 0, extent.offset + at
    while done < len(out):
        got = os.preadv(fd, [out[done:]], begin + done)
        if got == 0:
            raise CorruptError(
                f"{shown_path(extent.path)}: ends early, at byte {begin + done}",
                "The file is truncated: copy or save it again.",
            )
        done += got


def _spread(rows: Array, view: Array) -> None:
    """Copy rows to a view of any strides.

    When it is transposed a row goes to as many cache lines as it has elements: few rows at a time keep those alive
    until they are full.
    """
    step = TRANSPOSED if view.strides[-1] != view.itemsize else len(rows)
    for first in range(0, len(rows), step):
        view[first : first + step] = rows[first : first + step]


def row_major(lengths: Shape) -> Shape:
    """Strides, in elements, of a dense row-major box."""
    strides = [1] * len(lengths)
    for axis in range(len(lengths) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * lengths[axis + 1]
    return tuple(strides)


def _is_run(lengths: Shape, strides: Shape) -> bool:
    expected = 1
    for n, s in zip(reversed(lengths), reversed(strides), strict=True):
        if n > 1 and s != expected:
            return False
        expected *= n
    return True


def _as_array(data: memoryview, dtype: str, shape: Shape) -> Array:
    import numpy as np

    return np.frombuffer(data, dtype=dtype).reshape(shape)


def dense(spec: TensorSpec, item: int) -> Chunk:
    """The single chunk of a tensor that is an item of its own."""
    return Chunk((0,) * len(spec.shape), spec.shape, item)
