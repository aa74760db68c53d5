"""What a conversion is once it is planned: readers, files and places. Nothing is written yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..adapters.merged import Merged
from ..formats.opened import Summed
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
        checkpoints: the Megatron checkpoints that are read, whose formats keep checksums; the one whose reading a
            later run goes on with first, then that of an adapter which lies apart from its base.
        links: name below the target -> what it is a relative symbolic link to.
        seen: the source files, which must not change until all is written.
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
    checkpoints: Sequence[Summed] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    seen: SeenFiles = field(default_factory=SeenFiles)
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
