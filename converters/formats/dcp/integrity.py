"""integrity.json: the SHA-256 of every file of a checkpoint, as megatron-core 0.19 writes it when asked to.

The files that a run reads are hashed whole, in a pass of their own before anything is written: hashes cannot be put
together from the pieces in which tensors are read, and a damaged checkpoint is known before hours of work. What else
such a checkpoint holds (an optimizer's files) is not hashed, but must be there.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock
from typing import NamedTuple

from ...errors import CorruptError, UnsupportedError, shown, shown_path
from ..json_file import read_json
from ..open_files import OpenFiles, is_file, status
from ..seen_files import SeenFiles
from .metadata import check_bare

NAME = "integrity.json"
ALGORITHM = "sha256"

DECIDING = {".metadata", "metadata.json", "common.pt"}
"""They say what is read from where."""

BLOCK = 1 << 20

Progress = Callable[[int, int], None]

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Integrity:
    """What an integrity.json states.

    Attributes:
        directory: of the checkpoint.
        stated: file name -> SHA-256 in hexadecimal digits.
        files: opens them.
    """

    directory: Path
    stated: dict[str, str]
    files: OpenFiles = field(default_factory=OpenFiles, repr=False)

    def vouched(self, read: SeenFiles) -> list[str]:
        """Of the files that are read, those that are listed; with those that say what is read."""
        return sorted(self.stated.keys() & (DECIDING | read.names_in(self.directory)))

    def unlisted(self, read: SeenFiles) -> list[str]:
        """Of the files that are read, the others."""
        return sorted(read.names_in(self.directory) - self.stated.keys() - {NAME})

    def nbytes(self, read: SeenFiles) -> int:
        """Bytes that `check` reads."""
        found = [status(self.directory / name) for name in self.vouched(read)]
        return sum(one.st_size for one in found if one)

    def check(self, read: SeenFiles, threads: int, progress: Progress) -> None:
        """Hash the files that are read and listed, several at a time, and hold them against what is stated.

        Args:
            read: the files that the run reads.
            threads: how many at a time, each with a block of memory.
            progress: told of the bytes done and of all; from the calling thread.

        Raises:
            CorruptError: a file is not the one that was saved.
            ReadError, ChangedError: as OpenFiles.
        """
        work, total = _Work(self), self.nbytes(read)
        with ThreadPoolExecutor(max_workers=threads) as pool:
            flying: set[Future[None]] = {pool.submit(work.check, name) for name in self.vouched(read)}
            try:
                while flying:
                    done, flying = wait(flying, timeout=0.2, return_when=FIRST_COMPLETED)
                    for future in done:
                        future.result()
                    progress(min(work.done, total), total)
            except BaseException:
                work.stop.set()
                raise


class Vouched(NamedTuple):
    """The files of several checkpoints that are read.

    Attributes:
        listed: names of those that an integrity.json lists.
        unlisted: names of the others beside one.
        nbytes: of those that are listed.
    """

    listed: list[str]
    unlisted: list[str]
    nbytes: int


def vouched(found: Sequence[Integrity], read: SeenFiles) -> Vouched:
    """What is listed of the files that are read."""
    listed = [name for one in found for name in one.vouched(read)]
    unlisted = [name for one in found for name in one.unlisted(read)]
    return Vouched(listed, unlisted, sum(one.nbytes(read) for one in found))


class _Work:
    """One pass: the bytes that were hashed, and a flag that stops every thread."""

    def __init__(self, integrity: Integrity) -> None:
        self._integrity = integrity
        self._lock = Lock()
        self.done = 0
        self.stop = Event()

    def check(self, name: str) -> None:
        path = str(self._integrity.directory / name)
        sum_, block, at = hashlib.sha256(), memoryview(bytearray(BLOCK)), 0
        with self._integrity.files.held(path) as fd:
            while got := os.preadv(fd, [block], at):
                if self.stop.is_set():
                    return
                sum_.update(block[:got])
                at += got
                with self._lock:
                    self.done += got
        stated = self._integrity.stated[name]
        if sum_.hexdigest() != stated:
            raise CorruptError(
                f"{shown_path(path)} is not the file that was saved: SHA-256 {sum_.hexdigest()[:16]}… where {NAME} "
                f"states {stated[:16]}…",
                "The file, or integrity.json, is corrupt or was changed: copy both again from where they were saved.",
            )


def read_integrity(directory: Path) -> Integrity | None:
    """The integrity.json of a checkpoint; None where it has none. Every file that it lists is there.

    Raises:
        CorruptError: it is none, or lists a file that is missing or lies elsewhere.
        UnsupportedError: another kind of sum.
        ReadError: the system does not let it be read.
    """
    path = directory / NAME
    if not is_file(path):
        return None
    document = read_json(path)
    kind, files = document.get("algorithm", ALGORITHM), document.get("files")
    if kind != ALGORITHM:
        raise UnsupportedError(
            f"{shown_path(path)} states sums by {shown(kind)}; only {ALGORITHM} is checked",
            "Remove it to go without its sums.",
        )
    if not isinstance(files, dict) or not all(isinstance(d, str) and _DIGEST.fullmatch(d) for d in files.values()):
        raise CorruptError(f"{shown_path(path)} is no list of files and their SHA-256")
    for name in files:
        check_bare(name, str(path))
        if not is_file(directory / name):
            raise CorruptError(
                f"{shown_path(directory / name)} is missing, though {NAME} lists it",
                "Is the checkpoint complete? Copy the missing file.",
            )
    return Integrity(directory, files)
