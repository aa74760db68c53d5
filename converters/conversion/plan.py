"""What a conversion is once it is planned: readers, files and places. Nothing is written yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..adapters.merged import Merged
from ..formats.chunks import ChunkReader
from ..formats.dcp.integrity import Integrity
from ..formats.output_file import OutFile
from ..formats.seen_files import SeenFiles
from ..report import Report
from ..tensors.counting import Rounding
from ..tensors.spec import Reader


@dataclass(frozen=True)
class Plan:
    """A planned conversion.

    Attributes:
        report: what was recognised and will be done.
        reader: the tensors under the names of `files`.
        files: the output files.
        target: the directory to write.
        source: what the user gave as source.
        sources: directories that the target must not touch: the source, then the reference's.
        beside: folder below the target -> files to copy there byte for byte.
        chunks: the reader of the source, where its format keeps checksums.
        links: name below the target -> what it is a relative symbolic link to.
        seen: the source files, which must not change until all is written.
        integrity: the sums of whole files that the source states.
        steps: what computes on the way, which counts what it rounds.
        merged: what an adapter is merged by, which counts what it changes; None: there is none.
    """

    report: Report
    reader: Reader
    files: Sequence[OutFile]
    target: Path
    source: Path
    sources: Sequence[Path]
    beside: dict[str, list[Path]] = field(default_factory=dict)
    chunks: ChunkReader | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    seen: SeenFiles = field(default_factory=SeenFiles)
    integrity: Integrity | None = None
    steps: Sequence[Rounding] = ()
    merged: Merged | None = None

    @property
    def copied(self) -> list[Path]:
        """All files that are copied."""
        return [path for paths in self.beside.values() for path in paths]

    @property
    def nbytes(self) -> int:
        """Bytes that will be written."""
        return sum(file.size for file in self.files) + sum(path.stat().st_size for path in self.copied)
