"""What every conversion does once it is planned: check the target, write what was planned, report."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ..errors import shown_path
from ..formats.dcp.integrity import vouched
from ..formats.opened import Summed
from ..formats.seen_files import SeenFiles
from ..options import Mcore2HfOptions, McoreTarget, WritingOptions
from ..output.directory import OutputDirectory
from ..output.replaceable import CHECKPOINT, HF_MODEL, PEFT
from ..output.staging.ended import abandoned, describe_abandoned
from ..output.target import Target
from ..output.to_disk import bring_to_disk
from ..output.writing.read_back import read_back
from ..ranks.lead import led
from ..report import Observer, Phase, Report, tell_phase
from ..workers import workers_of
from .fill import fill
from .fingerprint import fingerprint
from .made import write_manifest
from .plan import Plan
from .summary import describe_integrity, describe_read_back, describe_written


def execute(plan: Plan, options: WritingOptions, observer: Observer) -> Report:
    """Write what was planned, unless it is a dry run.

    A target that cannot be written is refused before the plan is shown.
    """
    report, threads = plan.report, workers_of(options.threads, options.memory_bytes).threads
    if lead := led.get():
        lead.describe(report, threads)
    output = OutputDirectory(
        _target(plan, options),
        plan.sources,
        need=plan.nbytes,
        copies=plan.beside,
        fingerprint=fingerprint(plan, options),
        resume=options.resume,
        observer=observer,
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
                check_integrity(report, plan.checkpoints, plan.seen, threads, observer)
                tell_phase(observer, Phase.WRITING)
                begin = time.monotonic()
                written = fill(plan, new, output.journal, options, observer)
            if options.manifest:
                if options.sha256:
                    tell_phase(observer, Phase.HASHING)
                written.append(write_manifest(plan, options, written, new, output.part))
            if options.read_back:
                bring_to_disk(new, observer)
                tell_phase(observer, Phase.READING_BACK)
                passed_by = read_back(new, written, observer)
                describe_read_back(report, written, passed_by=passed_by)
    except BaseException as fault:
        output.abandon(fault)
        raise
    if output.leftover:
        report.warnings.append(
            f"what was in {shown_path(output.place)} before could not be removed: it is in "
            f"{shown_path(output.leftover)}"
            if output.replaced
            else f"{shown_path(output.leftover)}, where it was written, could not be removed; nothing in it is needed"
        )
    describe_written(report, plan.files, len(plan.copied), time.monotonic() - begin)
    report.status = "done"
    return report


def _tell_abandoned(plan: Plan, output: OutputDirectory) -> None:
    """What other ended runs have left near source and target."""
    left = abandoned([plan.source, plan.target])
    describe_abandoned(plan.report, [entry for entry in left if entry.path.resolve() != output.staging.resolve()])


def _target(plan: Plan, options: WritingOptions) -> Target:
    """What is to be written, and what it may replace."""
    if not isinstance(options, McoreTarget):
        kind = PEFT if isinstance(options, Mcore2HfOptions) and options.adapter else HF_MODEL
        return Target(path=plan.target, kind=kind, overwrite=options.overwrite)
    return Target(
        path=plan.target,
        kind=CHECKPOINT,
        iteration=options.as_iteration,
        set_latest=options.set_latest,
        overwrite=options.overwrite,
    )


def check_integrity(
    report: Report, checkpoints: Sequence[Summed], seen: SeenFiles, threads: int, observer: Observer
) -> None:
    """Hold whole source files against the sums that the source states, if it does; told in the report.

    Errors as Integrity.check.
    """
    found = [one.integrity for one in checkpoints if one.integrity]
    if not found:
        return
    tell_phase(observer, Phase.CHECKING_SOURCE)
    for integrity in found:
        integrity.check(seen, threads, observer.progress)
    describe_integrity(report, vouched(found, seen))
