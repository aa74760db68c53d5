"""What every conversion does once it is planned: check the target, write, copy what lies beside, report."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from ..errors import CorruptError
from ..options import McoreTarget, OutputOptions
from ..output.directory import OutputDirectory
from ..output.replaceable import CHECKPOINT, HF_MODEL
from ..output.target import Target
from ..output.writer import write_files
from ..report import Observer, Report
from .plan import Plan
from .summary import describe_checksums, describe_specials, describe_written


def execute(plan: Plan, options: OutputOptions, observer: Observer) -> Report:
    """Write what was planned, unless it is a dry run.

    A target that cannot be written is refused before the plan is shown.
    """
    report = plan.report
    output = OutputDirectory(_target(plan, options), plan.sources, need=plan.nbytes, copies=plan.beside)
    if options.dry_run:
        shortage = output.check()
        output.describe(report)
        report.warnings += [shortage] * bool(shortage)
        observer.planned(report)
        return report
    with output as new:
        output.describe(report)
        observer.planned(report)
        begin = time.monotonic()
        _fill(plan, new, options, observer)
    if output.leftover:
        report.warnings.append(f"what was in {output.place} before could not be removed: it is in {output.leftover}")
    if plan.chunks:
        describe_checksums(report, plan.chunks)
    describe_written(report, plan.files, len(plan.copied), time.monotonic() - begin)
    report.status = "done"
    return report


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


def _fill(plan: Plan, root: Path, options: OutputOptions, observer: Observer) -> None:
    """Write all files of a plan below a directory."""
    specials = write_files(plan.reader, plan.files, root, threads_of(options.threads), observer)
    describe_specials(plan.report, specials)
    if options.strict and specials.found:
        raise CorruptError(
            f"not all weights are numbers: {specials}",
            "Nothing was written. Without --strict they are converted as they are, and counted.",
        )
    for folder, paths in plan.beside.items():
        (root / folder).mkdir(exist_ok=True)
        for path in paths:
            shutil.copyfile(path, root / folder / path.name)
    for name, first in plan.links.items():
        try:
            (root / name).symlink_to(first, target_is_directory=True)
        except OSError as fault:  # a file system without links has the checkpoint all the same
            plan.report.warnings.append(
                f"{name} could not be made a link to {first}: {fault.strerror}; "
                f"loaders that look for it take {first} itself"
            )


def threads_of(asked: int | None) -> int:
    """How many windows at a time: enough that reads and writes overlap, few enough that memory stays small."""
    return asked or max(2, min(4, os.cpu_count() or 2))
