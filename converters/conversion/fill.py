"""All files of a plan, written below a directory: weights, what lies beside them, second names."""

from __future__ import annotations

from pathlib import Path

from ..checkpoint.lora.describe_adapter import describe_merged
from ..errors import CorruptError, shown
from ..formats.output_file import WrittenFile
from ..options import WritingOptions
from ..output.staging.journal import Journal
from ..output.writing.copies import copy_file
from ..output.writing.gathering import write_shared
from ..output.writing.writer import write_files
from ..ranks.forks import team_for
from ..report import Observer
from ..tensors.counting import all_counts
from ..tensors.nonfinite import Specials
from ..workers import processes_of, workers_of
from .plan import Plan
from .summary import describe_checksums, describe_rounded, describe_specials, unsummed


def fill(plan: Plan, root: Path, journal: Journal, options: WritingOptions, observer: Observer) -> list[WrittenFile]:
    """Write all files of a plan below a directory; those that an ended run has finished are kept."""
    chunks, kept = plan.checkpoints[0].chunks if plan.checkpoints else None, dict(journal.finished)
    if chunks:
        chunks.read_earlier(journal.source)

    def note(written: WrittenFile) -> None:
        journal.note(written, chunks.read_since() if chunks else {})

    workers = workers_of(options.threads, options.memory_bytes)
    nbytes = sum(file.size for file in plan.files if file.name not in kept)
    if team := team_for(nbytes, processes_of(workers)):
        workers = workers._replace(threads=team.each(workers.threads))
        written = write_shared(
            team,
            *(plan.reader, plan.files, root, workers, observer),
            threads=options.threads,
            finished=kept,
            note=note,
        )
    else:
        written = write_files(plan.reader, plan.files, root, workers, observer, finished=kept, note=note)
    specials = Specials()
    for file in written:
        for name, count in file.specials.items():
            specials.add(name, count)
    describe_specials(plan.report, specials)
    if options.strict and specials.found:
        raise CorruptError(
            f"not all weights are numbers: {specials}",
            "Nothing was written. Without --strict they are converted as they are, and counted.",
        )
    describe_rounded(plan.report, all_counts(plan.steps))
    if plan.merged:
        describe_merged(plan.report, plan.merged.counted())
    _tell_unsummed(plan, options)
    if plan.checkpoints:
        describe_checksums(plan.report, plan.checkpoints)
    for folder, paths in plan.beside.items():
        (root / folder).mkdir(exist_ok=True)
        written += [copy_file(path, root, f"{folder}/{path.name}".lstrip("/")) for path in paths]
    _link(plan, root)
    return written


def _link(plan: Plan, root: Path) -> None:
    """The second names of what is written."""
    for name, first in plan.links.items():
        try:
            (root / name).symlink_to(first, target_is_directory=True)
        except OSError as fault:  # a file system without links has the checkpoint all the same
            plan.report.warnings.append(
                f"{shown(name)} could not be made a link to {shown(first)}: {fault.strerror}; "
                f"loaders that look for it take {shown(first)} itself"
            )


def _tell_unsummed(plan: Plan, options: WritingOptions) -> None:
    """Warn of items without a checksum.

    Raises:
        CorruptError: --strict, and there are some.
    """
    warning = unsummed(plan.checkpoints)
    if warning and options.strict:
        raise CorruptError(
            warning,
            "Nothing was written. Save the checkpoint with checksums (torch.serialization.set_crc32_options(True)), or "
            "leave --strict out.",
        )
    plan.report.warnings += [warning] * bool(warning)
