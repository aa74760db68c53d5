"""The loop: windows of several output files, filled and written by threads side by side.

A window is independent of every other, so memory is threads x (window + a block of scratch), whatever the model's size.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from ...errors import SourceError
from ...formats.file_system import takes_direct
from ...formats.output_file import OutFile, WrittenFile
from ...formats.sums.file_sums import file_crc
from ...report import Observer
from ...tensors.dtypes import ITEMSIZE
from ...tensors.spec import Reader
from ...workers import Workers
from .buffers import Buffers
from .file_writer import Done, FileWriter, Job
from .open_file import OpenFile
from .sealing import seal

Item = TypeVar("Item")
Last = TypeVar("Last")

SIDE_BY_SIDE = 8
"""Files that are written at a time, at most: those are what a run that is killed has not finished."""

SIDE_BY_SIDE_DIRECT = 2
"""The same where the system's memory is passed by: threads do not wait for each other in one file then."""


def write_files(
    reader: Reader,
    files: Sequence[OutFile],
    root: Path,
    workers: Workers,
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
        root: where; a directory.
        workers: how many windows at a time, and their size.
        observer: told of the bytes.
        finished: what an earlier run has written of them; a file whose bytes still have that sum is kept.
        note: told of every file as it is finished.

    Returns:
        what was written, in the order of `files`.

    Raises:
        CorruptError: the source is damaged; nothing that was written is to be kept.
    """
    run = Run(reader, files, workers, observer)
    with ThreadPoolExecutor(max_workers=workers.threads) as pool:
        done = run.keep(root, finished or {}, pool)
        for written in run.write(root, [file for file in files if file.name not in done], pool):
            done[written.name] = written
            note(written)
    reader.finish()
    return [done[file.name] for file in files]


class Run:
    """One pass over all output files.

    Attributes:
        total, done: bytes of tensors.
    """

    def __init__(self, reader: Reader, files: Sequence[OutFile], workers: Workers, observer: Observer) -> None:
        self._reader, self._files, self._workers, self._observer = reader, files, workers, observer
        self.total = sum(map(self.weights, files))
        self.done = 0

    def keep(self, root: Path, finished: Mapping[str, WrittenFile], pool: ThreadPoolExecutor) -> dict[str, WrittenFile]:
        """The files whose bytes are still those that an earlier run noted; one that differs is removed."""
        kept: dict[str, WrittenFile] = {}
        for file in self._files:
            known = finished.get(file.name)
            if known is None:
                continue
            if self._same(file, root / file.name, known, pool):
                kept[file.name] = known
                self.done += self.weights(file)
            else:
                (root / file.name).unlink(missing_ok=True)
        return kept

    def _same(self, file: OutFile, path: Path, known: WrittenFile, pool: ThreadPoolExecutor) -> bool:
        weights = self.weights(file)

        def progress(nbytes: int) -> None:
            self._observer.progress(min(self.done + nbytes * weights // max(1, file.size), self.total), self.total)

        try:
            return path.stat().st_size == file.size == known.nbytes and file_crc(path, pool, progress) == known.crc
        except (OSError, SourceError):
            return False

    def write(self, root: Path, files: Sequence[OutFile], pool: ThreadPoolExecutor) -> Iterator[WrittenFile]:
        """Write files, and tell of each as it is finished."""
        direct, buffers = takes_direct(root), Buffers(self._workers.window)
        writers = [
            FileWriter(
                self._reader,
                file.pieces,
                partial(new_file, root / file.name, file.size, direct=direct),
                partial(seal, file),
                buffers,
            )
            for file in files
        ]
        for nbytes, ended in fill_files(writers, self._workers.threads, pool, direct=direct):
            self.done += nbytes
            yield from ended
            self._observer.progress(self.done, self.total)

    def weights(self, file: OutFile) -> int:
        """Bytes of tensors in a file."""
        return sum(box.size * ITEMSIZE[self._reader.specs[box.name].dtype] for box, _ in file.pieces)


def new_file(path: Path, size: int, *, direct: bool) -> OpenFile:
    """A new file, and the folders that it lies in. Errors as OpenFile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return OpenFile(path, size, direct=direct)


def fill_files(
    writers: Sequence[FileWriter[Last]], threads: int, pool: ThreadPoolExecutor, *, direct: bool
) -> Iterator[tuple[int, list[Last]]]:
    """Fill files; what stops one stops all.

    Args:
        writers: of the files.
        threads: of the pool.
        pool: does the work.
        direct: the system's memory is passed by.

    Yields:
        every moment: the bytes that were written since the last time, and what became of the files that are filled.
    """
    lanes = min(threads, SIDE_BY_SIDE_DIRECT if direct else SIDE_BY_SIDE)
    flying: set[Future[Done[Last]]] = set()
    work = _Work[Last]()
    try:
        for job in side_by_side((writer.jobs() for writer in writers), lanes):
            flying.add(pool.submit(work.do, job))
            if len(flying) > 2 * threads:
                yield _settle(flying)
        while flying:
            yield _settle(flying)
    except BaseException:
        work.stop = True
        raise
    finally:
        for writer in writers:
            writer.close()


class _Work(Generic[Last]):
    """A flag that stops every thread."""

    def __init__(self) -> None:
        self.stop = False

    def do(self, job: Job[Last]) -> Done[Last]:
        return Done() if self.stop else job()


def _settle(flying: set[Future[Done[Last]]]) -> tuple[int, list[Last]]:
    """Wait for one of the jobs, or a moment."""
    ended, _ = wait(flying, timeout=0.2, return_when=FIRST_COMPLETED)
    flying -= ended
    found = [future.result() for future in ended]
    return sum(done.nbytes for done in found), [done.last for done in found if done.last is not None]


def side_by_side(listed: Iterable[Iterator[Item]], lanes: int) -> Iterator[Item]:
    """The jobs of several files in turn, of so many files at a time."""
    waiting, begun = iter(listed), deque[Iterator[Item]]()
    while True:
        begun.extend(islice(waiting, lanes - len(begun)))
        if not begun:
            return
        jobs = begun.popleft()
        job = next(jobs, None)
        if job is not None:
            begun.append(jobs)
            yield job
