"""What a run has finished, noted in its staging directory: a run that comes after a kill keeps it.

A line for each file, behind its own CRC-32, as a kill or a power cut may leave half of one. Nothing is taken on trust:
a noted file is read again, and its sum must be the noted one. What was read of the source is noted along, so that the
checksums of the source's items are checked in the end, as if there had been one run.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...formats.output_file import WrittenFile
from ...formats.sums.crc import Run, crc32
from ...tensors.nonfinite import Count
from ..faults import about

JOURNAL = "journal"
"""Its name in a staging directory."""


@dataclass
class Journal:
    """The files that are finished.

    Attributes:
        path: the journal itself.
        fingerprint: what the run makes, of what, with which version: only a run of the same goes on with it.
        finished: name -> what was written.
        source: item of the source -> the runs of it that were read for those files; see ChunkReader.read_since.
    """

    path: Path
    fingerprint: str
    finished: dict[str, WrittenFile] = field(default_factory=dict)
    source: dict[int, list[Run]] = field(default_factory=dict)

    def begin(self) -> None:
        """Write its first line, in place of any other journal."""
        with about(self.path):
            self.path.write_text(_line({"fingerprint": self.fingerprint}))

    @classmethod
    def read(cls, path: Path) -> Journal | None:
        """That of an earlier run, as far as it can be read; None where nothing can."""
        try:
            if not stat.S_ISREG(path.lstat().st_mode):
                return None
            lines = path.read_text("utf-8", errors="replace").split("\n")
        except OSError:
            return None
        documents = _documents(lines)
        if not documents or not isinstance(documents[0], dict) or not isinstance(documents[0].get("fingerprint"), str):
            return None
        journal = cls(path, documents[0]["fingerprint"])
        with suppress(KeyError, TypeError, ValueError, AttributeError):  # as another version writes it
            for document in documents[1:]:
                journal._take(document)
        return journal

    def note(self, written: WrittenFile, source: Mapping[int, Sequence[Run]]) -> None:
        """A file is finished, for which this was read of the source since the last one."""
        self.finished[written.name] = written
        specials = {name: list(count) for name, count in written.specials.items()}
        document = {
            "file": [written.name, written.nbytes, written.crc, written.pieces, specials],
            "source": [*source.items()],
        }
        with about(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(_line(document))

    @property
    def nbytes(self) -> int:
        """Bytes of all finished files."""
        return sum(written.nbytes for written in self.finished.values())

    def _take(self, document: Any) -> None:
        name, nbytes, crc, pieces, specials = document["file"]
        counts = {tensor: Count(*count) for tensor, count in specials.items()}
        source = {item: [(start, end, total) for start, end, total in runs] for item, runs in document["source"]}
        self.finished[name] = WrittenFile(name, nbytes, crc, tuple(pieces), counts)
        self.source |= source


def _line(document: Any) -> str:
    text = json.dumps(document, separators=(",", ":"))
    return f"{crc32(text.encode()):08x} {text}\n"


def _documents(lines: Sequence[str]) -> list[Any]:
    """What the lines hold, up to the first that is damaged or was cut short."""
    found = []
    for line in lines:
        text = line[9:]
        if not text or line[:9] != f"{crc32(text.encode()):08x} ":
            break
        found.append(json.loads(text))
    return found


def keep_only(root: Path, names: Sequence[str]) -> None:
    """Remove every file and link below `root` but those of the given names."""
    kept = set(names)
    for folder, folders, files in os.walk(root):
        for name in files + [f for f in folders if Path(folder, f).is_symlink()]:
            path = Path(folder, name)
            if path.is_symlink() or str(path.relative_to(root)) not in kept:
                path.unlink()
