"""What every conversion does once it is planned: check the target, write, copy what lies beside, report."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from ..checkpoint.open import McoreSide
from ..errors import CorruptError, MismatchError
from ..formats.chunks import ChunkReader
from ..formats.output_file import OutFile
from ..options import Mcore2HfOptions, McoreOutput
from ..output.directory import OutputDirectory
from ..output.writer import write_files
from ..report import Observer, Report
from ..tensors.cast import Cast
from ..tensors.spec import Reader
from .summary import describe_checksums, describe_specials, describe_written


def run(
    report: Report,
    reader: Reader,
    files: Sequence[OutFile],
    target: Path,
    sources: Sequence[Path],
    observer: Observer,
    options: Mcore2HfOptions | McoreOutput,
    beside: dict[str, list[Path]],
    chunks: ChunkReader | None = None,
) -> Report:
    """Write what was planned, unless it is a dry run. A target that cannot be written is refused before the plan is shown.

    Args:
        report: of the plan; completed and returned.
        reader: the tensors under the names of `files`.
        sources: directories that the target must not touch.
        beside: folder below the target -> files to copy there byte for byte.
        chunks: the reader of the source, where its format keeps checksums.
    """
    copied = [path for paths in beside.values() for path in paths]
    output = OutputDirectory(
        target,
        sources,
        overwrite=options.overwrite,
        need=sum(f.size for f in files) + sum(p.stat().st_size for p in copied),
    )
    if options.dry_run:
        shortage = output.check()
        report.warnings += [shortage] * bool(shortage)
        observer.planned(report)
        return report
    with output as partial:
        observer.planned(report)
        begin = time.monotonic()
        specials = write_files(reader, files, partial, threads_of(options.threads), observer)
        describe_specials(report, specials)
        if options.strict and specials.found:
            raise CorruptError(
                f"not all weights are numbers: {specials}",
                "Nothing was written. Without --strict they are converted as they are, and counted.",
            )
        for folder, paths in beside.items():
            (partial / folder).mkdir(exist_ok=True)
            for path in paths:
                shutil.copyfile(path, partial / folder / path.name)
    if output.leftover:
        report.warnings.append(f"what was in {target} before could not be removed: it is in {output.leftover}")
    if chunks:
        describe_checksums(report, chunks)
    describe_written(report, files, len(copied), time.monotonic() - begin)
    report.status = "done"
    return report


def refuse_warned(side: McoreSide) -> None:
    """--strict takes no checkpoint whose ranks disagree.

    Raises:
        MismatchError: tensors that ranks hold whole differ among them.
    """
    if side.opened.warnings:
        listed = "\n".join(f"  {line}" for line in side.opened.warnings[:10])
        raise MismatchError(
            f"{side.directory}: ranks disagree:\n{listed}", "Without --strict the first one is taken, with a warning."
        )


def cast(reader: Reader, dtype: str | None) -> Reader:
    """The reader, with --dtype applied."""
    return Cast(reader, dtype) if dtype else reader


def main_dtype(reader: Reader) -> str:
    """The dtype of most bytes: what config.json states."""
    total: dict[str, int] = {}
    for spec in reader.specs.values():
        total[spec.dtype] = total.get(spec.dtype, 0) + spec.nbytes
    return max(total, key=lambda d: total[d])


def threads_of(asked: int | None) -> int:
    """How many windows at a time: enough that reads and writes overlap, few enough that memory stays small."""
    return asked or max(2, min(4, os.cpu_count() or 2))
