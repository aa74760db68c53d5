"""Output files filled by several processes: rank 0 makes them, and seals each once all of its parts are there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...formats.output_file import OutFile, WrittenFile
from ...ranks.accounts import count_in
from ...ranks.team import Team
from ...report import Observer
from ...tensors.spec import Reader
from ...workers import Workers
from .filled import Filled
from .open_file import OpenFile
from .sealing import seal
from .shares import Fill, Part
from .writer import Run, new_file


def write_shared(
    team: Team,
    reader: Reader,
    files: Sequence[OutFile],
    root: Path,
    workers: Workers,
    observer: Observer,
    *,
    threads: int | None,
    finished: Mapping[str, WrittenFile],
    note: Callable[[WrittenFile], None],
) -> list[WrittenFile]:
    """As writer.write_files, by all processes of a run.

    Args:
        team: the processes.
        reader, files, root, workers, observer, finished, note: see there.
        threads: see Fill.

    Raises:
        RankError: a process is gone. Other errors are as there, of any process.
    """
    run = Run(reader, files, workers, observer)
    with ThreadPoolExecutor(max_workers=workers.threads) as pool:
        done = run.keep(root, finished, pool)
    made = _Made(root, [file for file in files if file.name not in done], run.weights)

    def take(part: Part) -> None:
        count_in(part.counted, reader)
        seal_all(made.add(part.number, part.filled))

    def seal_all(sealed: Iterator[WrittenFile]) -> None:
        for written in sealed:
            done[written.name] = written
            note(written)

    seal_all(made.begin())
    bare = [OutFile(file.name, file.size, file.pieces) for file in made.files]  # only rank 0 seals
    task = Fill(reader, bare, root, threads, workers, several_hosts=team.several_hosts)
    team.run(task, take, lambda nbytes: observer.progress(run.done + nbytes, run.total))
    reader.finish()
    return [done[file.name] for file in files]


class _Made:
    """The files that processes fill.

    Args:
        root: where.
        files: as they were planned.
        weights: bytes of tensors in a file.
    """

    def __init__(self, root: Path, files: Sequence[OutFile], weights: Callable[[OutFile], int]) -> None:
        self.files = files
        self._root = root
        self._left = list(map(weights, files))
        self._filled = [Filled(len(file.pieces)) for file in files]

    def begin(self) -> Iterator[WrittenFile]:
        """Make them all; those without tensors are finished at once."""
        for number, file in enumerate(self.files):
            new_file(self._root / file.name, file.size, direct=False).close()
            if not self._left[number]:
                yield self._sealed(number)

    def add(self, number: int, filled: Filled) -> Iterator[WrittenFile]:
        """Put a process' part of a file to the others; with the last it is finished."""
        if nbytes := filled.nbytes:
            self._filled[number].merge(filled)
            self._left[number] -= nbytes
            if not self._left[number]:
                yield self._sealed(number)

    def _sealed(self, number: int) -> WrittenFile:
        file = self.files[number]
        out = OpenFile(self._root / file.name, None)
        try:
            return seal(file, out, self._filled[number])
        finally:
            out.close()
