"""The loop: output files are cut into windows of bounded size, and threads fill and write them.

A window is independent of every other, so memory is threads x (window + a block of scratch), whatever the model's size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...errors import SourceError
from ...formats.output_file import OutFile, Piece, WrittenFile
from ...formats.sums.crc import crc32, join, laid_out
from ...formats.sums.file_sums import file_crc
from ...report import Observer
from ...tensors.dtypes import ITEMSIZE, storage
from ...tensors.nonfinite import Specials
from ...tensors.spec import Box, Reader
from ...tensors.tiling import WINDOW, cut
from .open_file import WRITE, OpenFile


class Part(NamedTuple):
    """A box whose row-major bytes belong at one place of an output file."""

    piece: int  # its number in the file
    box: Box
    offset: int
    nbytes: int


def windows(pieces: Sequence[Piece], itemsizes: Sequence[int], limit: int = WINDOW) -> Iterator[list[Part]]:
    """Consecutive parts of a file, together at most `limit` bytes."""
    held: list[Part] = []
    room = limit
    for number, (piece, itemsize) in enumerate(zip(pieces, itemsizes, strict=True)):
        for box, offset in cut(piece.box, piece.offset, itemsize, limit):
            part = Part(number, box, offset, box.size * itemsize)
            if part.nbytes > room and held:
                yield held
                held, room = [], limit
            held.append(part)
            room -= part.nbytes
    if held:
        yield held


def write_files(
    reader: Reader,
    files: Sequence[OutFile],
    root: Path,
    threads: int,
    observer: Observer,
    *,
    finished: Mapping[str, WrittenFile] | None = None,
    note: Callable[[WrittenFile], None] = lambda written: None,
) -> list[WrittenFile]:
    """Fill every output file from a reader, below `root`.

    Bringing them to disk is the output directory's part: waiting after each file would stop the reading.

    Args:
        reader: the tensors.
        files: what is to be written.
        root: where.
        threads: how many windows at a time.
        observer: told of the bytes.
        finished: what an earlier run has written of them; a file whose bytes still have that sum is kept.
        note: told of every file that is finished, in order.

    Raises:
        CorruptError: the source is damaged; nothing that was written is to be kept.
    """
    total = sum(box.size * ITEMSIZE[reader.specs[box.name].dtype] for f in files for box, _ in f.pieces)
    run = _Run(reader, total, observer)
    written: list[WrittenFile] = []
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for file in files:
            known = (finished or {}).get(file.name)
            if known is not None and run.keep(file, root / file.name, known, pool):
                written.append(known)
            else:
                written.append(run.write(file, root / file.name, pool, threads))
                note(written[-1])
    reader.finish()
    return written


class _Run:
    """One pass over all output files: buffers, progress, and a flag that stops every thread."""

    def __init__(self, reader: Reader, total: int, observer: Observer) -> None:
        self._reader, self._total, self._observer = reader, total, observer
        self._done = 0
        self._lock = threading.Lock()
        self._stop = False
        self._buffers = threading.local()

    def keep(self, file: OutFile, path: Path, known: WrittenFile, pool: ThreadPoolExecutor) -> bool:
        """Whether the bytes of a file are still those that an earlier run noted; one that differs is removed."""
        weights = sum(nbytes for _, nbytes in self._places(file))

        def progress(nbytes: int) -> None:
            self._observer.progress(min(self._done + nbytes * weights // max(1, file.size), self._total), self._total)

        try:
            same = path.stat().st_size == file.size == known.nbytes and file_crc(path, pool, progress) == known.crc
        except (OSError, SourceError):
            same = False
        if same:
            self._done += weights
        else:
            path.unlink(missing_ok=True)
        return same

    def write(self, file: OutFile, path: Path, pool: ThreadPoolExecutor, threads: int) -> WrittenFile:
        """One file: its windows, then its header and what depends on the sums."""
        path.parent.mkdir(parents=True, exist_ok=True)
        sums: list[dict[int, tuple[int, int]]] = [{} for _ in file.pieces]
        specials = Specials()
        out = OpenFile(path, file.size)
        try:
            itemsizes = [self._itemsize(p) for p in file.pieces]
            listed = windows(file.pieces, itemsizes)
            self._all(pool, threads, (partial(self._window, out, w, sums, specials) for w in listed))
            pieces = [_total(runs) for runs in sums]
            literals = [*file.literals, *(file.seal(pieces) if file.seal else ())]
            out.write((offset, memoryview(data)) for offset, data in literals)
        finally:
            out.close()
        runs = [(*place, crc) for place, crc in zip(self._places(file), pieces, strict=True)]
        runs += [(offset, len(data), crc32(data)) for offset, data in literals]
        return WrittenFile(file.name, file.size, laid_out(file.size, runs), tuple(pieces), specials.found)

    def _places(self, file: OutFile) -> list[tuple[int, int]]:
        """Offset and bytes of each piece."""
        return [(piece.offset, piece.box.size * self._itemsize(piece)) for piece in file.pieces]

    def _itemsize(self, piece: Piece) -> int:
        return ITEMSIZE[self._reader.specs[piece.box.name].dtype]

    def _all(self, pool: ThreadPoolExecutor, threads: int, jobs: Iterator[Callable[[], None]]) -> None:
        """Run jobs, a few in flight; the first exception, or Ctrl-C, stops the rest."""
        flying: set[Future[None]] = set()
        try:
            for job in jobs:
                flying.add(pool.submit(job))
                while len(flying) > 2 * threads:
                    flying = self._settle(flying)
            while flying:
                flying = self._settle(flying)
        except BaseException:
            self._stop = True
            raise

    def _settle(self, flying: set[Future[None]]) -> set[Future[None]]:
        done, rest = wait(flying, timeout=0.2, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        self._observer.progress(self._done, self._total)
        return rest

    def _window(
        self, out: OpenFile, parts: list[Part], sums: list[dict[int, tuple[int, int]]], specials: Specials
    ) -> None:
        if self._stop:
            return
        buffer, at = self._buffer(sum(p.nbytes for p in parts)), 0
        runs: list[tuple[int, memoryview]] = []
        for part in parts:
            data = buffer[at : at + part.nbytes]
            fill(self._reader, part.box, data)
            specials.look(part.box.name, self._reader.specs[part.box.name].dtype, data)
            sums[part.piece][part.offset] = (part.nbytes, _crc(data))
            if runs and runs[-1][0] + len(runs[-1][1]) == part.offset:
                runs[-1] = (runs[-1][0], buffer[at - len(runs[-1][1]) : at + part.nbytes])
            else:
                runs.append((part.offset, data))
            at += part.nbytes
        out.write(runs)
        with self._lock:
            self._done += at

    def _buffer(self, nbytes: int) -> memoryview:
        held: memoryview | None = getattr(self._buffers, "held", None)
        if held is None or len(held) < nbytes:
            # numpy leaves the pages untouched until they are used; bytearray would clear them first
            import numpy as np

            held = self._buffers.held = memoryview(np.empty(max(nbytes, WINDOW), np.uint8)).cast("B")
        return held[:nbytes]


def fill(reader: Reader, box: Box, data: memoryview) -> None:
    """Read a box into its row-major bytes."""
    import numpy as np

    reader.read_into(box, np.frombuffer(data, dtype=storage(reader.specs[box.name].dtype)).reshape(box.lengths))


def _crc(data: memoryview) -> int:
    crc = 0
    for at in range(0, len(data), WRITE):
        crc = crc32(data[at : at + WRITE], crc)
    return crc


def _total(runs: dict[int, tuple[int, int]]) -> int:
    crc = 0
    for offset in sorted(runs):
        nbytes, part = runs[offset]
        crc = join(crc, part, nbytes)
    return crc
