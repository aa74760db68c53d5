"""What every conversion does once it is planned: check the target, write, copy what lies beside, report."""

from __future__ import annotations

import os
import time
from pathlib import Path

from ..errors import CorruptError
from ..formats.crc import crc32
from ..formats.dcp.integrity import Integrity
from ..formats.directory.contents import MANIFEST
from ..formats.output_file import WrittenFile
from ..formats.seen_files import SeenFiles
from ..options import McoreTarget, OutputOptions
from ..output.copies import copy_file
from ..output.directory import OutputDirectory
from ..output.ended import abandoned, describe_abandoned
from ..output.journal import Journal
from ..output.open_file import OpenFile
from ..output.read_back import read_back
from ..output.replaceable import CHECKPOINT, HF_MODEL
from ..output.target import Target
from ..output.writer import write_files
from ..report import Observer, Report, tell_written
from ..tensors.nonfinite import Specials
from .fingerprint import fingerprint
from .made import manifest_of
from .plan import Plan
from .summary import (
    describe_checksums,
    describe_integrity,
    describe_read_back,
    describe_specials,
    describe_written,
    unsummed,
)


def execute(plan: Plan, options: OutputOptions, observer: Observer) -> Report:
    """Write what was planned, unless it is a dry run.

    A target that cannot be written is refused before the plan is shown.
    """
    report = plan.report
    output = OutputDirectory(
        _target(plan, options),
        plan.sources,
        need=plan.nbytes,
        copies=plan.beside,
        fingerprint=fingerprint(plan, options),
        resume=options.resume,
        written=lambda: tell_written(observer, output.place),
    )
    if options.dry_run:
        shortage = output.check()
        output.describe(report)
        report.warnings += [shortage] * bool(shortage)
        _tell_abandoned(plan, output)
        observer.planned(report)
        return report
    try:
        with output as new:
            output.describe(report)
            _tell_abandoned(plan, output)
            observer.planned(report)
            with plan.seen.held():
                if plan.integrity:
                    check_integrity(report, plan.integrity, plan.seen, threads_of(options.threads), observer)
                begin = time.monotonic()
                written = _fill(plan, new, output.journal, options, observer)
            _seal(plan, new, output, written, options, observer)
    except BaseException as fault:
        output.abandon(fault)
        raise
    if output.leftover:
        report.warnings.append(f"what was in {output.place} before could not be removed: it is in {output.leftover}")
    describe_written(report, plan.files, len(plan.copied), time.monotonic() - begin)
    report.status = "done"
    return report


def _tell_abandoned(plan: Plan, output: OutputDirectory) -> None:
    """What other ended runs have left near source and target."""
    left = abandoned([plan.source, plan.target])
    describe_abandoned(plan.report, [entry for entry in left if entry.path.resolve() != output.staging.resolve()])


def _target(plan: Plan, options: OutputOptions) -> Target:
    """What is to be written, and what it may replace."""
    if not isinstance(options, McoreTarget):
        return Target(path=plan.target, kind=HF_MODEL, overwrite=options.overwrite)
    return Target(
        path=plan.target,
        kind=CHECKPOINT,
        iteration=options.as_iteration,
        set_latest=options.set_latest,
        overwrite=options.overwrite,
    )


def _fill(plan: Plan, root: Path, journal: Journal, options: OutputOptions, observer: Observer) -> list[WrittenFile]:
    """Write all files of a plan below a directory; those that an ended run has finished are kept."""
    chunks, kept = plan.chunks, dict(journal.finished)
    if chunks:
        chunks.read_earlier(journal.source)

    def note(written: WrittenFile) -> None:
        journal.note(written, chunks.read_since() if chunks else {})

    threads = threads_of(options.threads)
    written = write_files(plan.reader, plan.files, root, threads, observer, finished=kept, note=note)
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
    _tell_unsummed(plan, options)
    if chunks:
        describe_checksums(plan.report, chunks)
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
                f"{name} could not be made a link to {first}: {fault.strerror}; "
                f"loaders that look for it take {first} itself"
            )


def _seal(
    plan: Plan,
    root: Path,
    output: OutputDirectory,
    written: list[WrittenFile],
    options: OutputOptions,
    observer: Observer,
) -> None:
    """What comes last: the manifest, and a second look at what was written."""
    if options.manifest:
        part = output.part
        manifest = manifest_of(plan, options, written, root, part)
        text = manifest.text().encode()
        name = f"{part}/{MANIFEST}" if part else MANIFEST
        out = OpenFile(root / name, len(text))
        try:
            out.write([(0, memoryview(text))])
        finally:
            out.close()
        written.append(WrittenFile(name, len(text), crc32(text)))
        plan.report.fact("manifest", f"{MANIFEST}: checksums of {len(manifest.files)} files", manifest=MANIFEST)
    if options.read_back:
        passed_by = read_back(root, written, observer)
        describe_read_back(plan.report, written, passed_by=passed_by)


def _tell_unsummed(plan: Plan, options: OutputOptions) -> None:
    """Warn of items without a checksum.

    Raises:
        CorruptError: --strict, and there are some.
    """
    warning = unsummed(plan.chunks) if plan.chunks else ""
    if warning and options.strict:
        raise CorruptError(
            warning,
            "Nothing was written. Save the checkpoint with checksums (torch.serialization.set_crc32_options(True)), or "
            "leave --strict out.",
        )
    plan.report.warnings += [warning] * bool(warning)


def check_integrity(report: Report, integrity: Integrity, seen: SeenFiles, threads: int, observer: Observer) -> None:
    """Hold whole source files against the sums that the source states; told in the report.

    Errors as Integrity.check.
    """
    integrity.check(seen, threads, observer.progress)
    describe_integrity(report, integrity.vouched(seen), integrity.unlisted(seen))


def threads_of(asked: int | None) -> int:
    """How many windows at a time: enough that reads and writes overlap, few enough that memory stays small."""
    return asked or max(2, min(4, os.cpu_count() or 2))
