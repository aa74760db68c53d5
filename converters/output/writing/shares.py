"""Output files filled by several processes: each fills the windows of its share.

Two hosts may write parts of one page of a file. A network file system keeps both as long as each host knows no more of
the page than its own part. So files are opened for writing alone; what a process wrote is flushed before rank 0 hears
of it; and rank 0 opens a file anew to seal it.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ...errors import TargetError, shown_path
from ...formats.file_system import takes_direct
from ...formats.output_file import OutFile
from ...ranks.accounts import Counted, counted
from ...ranks.team import Member
from ...tensors.spec import Reader
from ...workers import Workers, workers_of
from .buffers import Buffers
from .file_writer import FileWriter
from .filled import Filled
from .open_file import OpenFile
from .writer import fill_files


class Part(NamedTuple):
    """What a process has filled of a file.

    Attributes:
        number: of the file.
        filled: its share.
        counted: by each account below the reader, since the process told of a file before.
    """

    number: int
    filled: Filled
    counted: Counted


@dataclass(frozen=True)
class Fill:
    """What every process does of a conversion: a Task.

    Attributes:
        reader: the tensors.
        files: those to fill, which are there.
        root: where.
        threads: as asked for; None: by each machine.
        workers: of rank 0: windows are the same in all processes, and none has more threads.
        several_hosts: see Team.
    """

    reader: Reader
    files: Sequence[OutFile]
    root: Path
    threads: int | None
    workers: Workers
    several_hosts: bool = True

    def __call__(self, member: Member) -> None:
        """See Task."""
        if self.several_hosts:
            self._look()
        counted(member, self.reader)  # and told nobody: a process that was forked has counts of the one it is of
        threads = min(workers_of(self.threads).threads, self.workers.threads)
        direct, done = takes_direct(self.root), 0
        writers = self._writers(member.share.span(sum(file.size for file in self.files)), direct=direct)
        with ThreadPoolExecutor(max_workers=threads) as pool:
            for nbytes, ended in fill_files(writers, threads, pool, direct=direct):
                for number, filled in ended:
                    member.tell(Part(number, filled, counted(member, self.reader)))
                done += nbytes
                member.progress(done)

    def _writers(self, span: range, *, direct: bool) -> list[FileWriter[tuple[int, Filled]]]:
        """Of all files of which windows begin in a span of the bytes of all."""
        found, begin, buffers = [], 0, Buffers(self.workers.window)
        for number, file in enumerate(self.files):
            mine = range(max(span.start - begin, 0), min(span.stop - begin, file.size))
            begin += file.size
            if mine and file.pieces:
                opening = partial(OpenFile, self.root / file.name, None, direct=direct)
                ending = partial(_flushed if self.several_hosts else _numbered, number)
                found.append(FileWriter(self.reader, file.pieces, opening, ending, buffers, mine))
        return found

    def _look(self) -> None:
        """The output's folder is here, too. To list those above it lets a network file system look anew."""
        for folder in (self.root.parent.parent, self.root.parent):
            with suppress(OSError):
                next(folder.iterdir(), None)
        if not self.root.is_dir():
            raise TargetError(
                f"{shown_path(self.root)}, which rank 0 has made, is not there",
                "Sources and target must lie on a file system that all hosts share, under the same paths.",
            )


def _flushed(number: int, out: OpenFile, filled: Filled) -> tuple[int, Filled]:
    out.sync()
    return _numbered(number, out, filled)


def _numbered(number: int, out: OpenFile, filled: Filled) -> tuple[int, Filled]:
    return number, filled
