"""verify: two models held against each other, or one against its round trip or a witness.

Two models of either side held against each other bit by bit, or one against its own round trip, or against what a
foreign reader makes of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from os import PathLike

from ..checkpoint.describe import describe_hf, describe_mcore
from ..checkpoint.mcore_side import McoreSide
from ..errors import NotComparable, VlconvError, naming_missing_libraries, shown_path
from ..formats.directory.contents import MANIFEST
from ..options import VerifyOptions
from ..output.staging.ended import abandoned, describe_abandoned
from ..ranks.lead import led
from ..report import Observer, Report, Step
from ..tensors.spec import Box
from ..workers import workers_of
from .comparison.by_rule import pair_by_rule
from .comparison.compare import Work, comparing, in_turn
from .files import compare_files, describe_files, describe_manifest, manifest_about
from .forward.describe import describe_plan, describe_ran
from .forward.forward import Forward
from .forward.ready import ready
from .heat import heat_map
from .like.like import held_like
from .parts import describe_parts
from .round_trip import round_trip
from .side_path import SidePath, side_path
from .sides import open_pair, open_side
from .sources import Side, add_part, holding_sources
from .summary import describe_comparison, describe_names
from .witnesses.opening import open_witness

COMPARING = 8
"""Threads that are of use, or processes: on 16 cores 16 of them took as long as 8."""

TOLD = (
    "source",
    "layout",
    "config_from",
    "vocabulary",
    "overridden",
    "not_provable",
    "dropped",
    "dequantised",
    "carried",
    "adapter",
    "left_behind",
    "to_hash",
)
"""What is said of either side of a pair."""


def verify(a: str | PathLike[str], b: str | PathLike[str] | None, options: VerifyOptions, observer: Observer) -> Report:
    """Compare every element of two models, of one and its round trip, or of one and a witness.

    Args:
        a, b: Megatron or Hugging Face directories, or iterations of one as "SAVE:100"; b None: the round trip of a, or
            `options.witness`.

    Returns:
        a report whose status is "same" or "different" ("planned" for a dry run).

    Raises:
        NotComparable: a side cannot be read or is another model; nothing is said about equality then.
    """
    try:
        with naming_missing_libraries():
            return _verify(side_path(a), None if b is None else side_path(b), options, observer)
    except NotComparable:
        raise
    except VlconvError as error:
        refusal = NotComparable(error.what, error.hint)
        for note in getattr(error, "__notes__", []):
            refusal.add_note(note)
        raise refusal from error


def _verify(a: SidePath, b: SidePath | None, options: VerifyOptions, observer: Observer) -> Report:
    report = Report("verify", "planned", result=_asked(a, b))
    if options.like is not None:
        if b is not None or options.witness or options.on_disk:
            raise NotComparable("--like is about one directory", "Leave B, --witness and --on-disk out.")
        return held_like(report, a, options, observer)
    if lead := led.get():
        lead.describe(report, workers_of(options.threads, options.memory_bytes).threads)
    if b is None:
        return _alone(report, a, options, observer)
    if options.witness or options.on_disk:
        raise NotComparable("a witness and --on-disk go with one checkpoint", "Leave B out.")
    first, second = open_pair(a, b, options, as_it_is=not options.forward)  # which loads no model that is no one
    work = _pair(report, first, second)
    sides: dict[str, Side] = {"A": first, "B": second}
    forward = _forward(report, sides, options)
    _tell_abandoned(report, a, b)
    observer.planned(report)
    if options.dry_run:
        return report
    _worked(report, work, sides, options, observer, forward)
    if report.differences and all(d.kind == "dtype" and not d.count for d in report.differences):
        report.steps.append(Step("accept other dtypes of equal values", "--values"))
    return report


def _asked(a: SidePath, b: SidePath | None) -> str:
    """What is held against what, for the plan."""
    first, *others = (
        shown_path(side.path) + (f":{round(side.iteration)}" if side.iteration is not None else "")
        for side in (a, b)
        if side is not None
    )
    return f"{first} against {others[0]}" if others else first


def _alone(report: Report, a: SidePath, options: VerifyOptions, observer: Observer) -> Report:
    """One side: its files against its manifest, where it has one, and its round trip or a witness."""
    listed = manifest_about(a, options.iteration)
    opened: tuple[Side, Work, Forward | None] | None = None
    fault: VlconvError | None = None
    try:
        side = open_side(a, options, 0)
        _describe(report, side)
        if side.adapter:
            raise NotComparable(
                "what an adapter is merged into does not come back: there is no round trip, and no witness reads it",
                "Give the merged directory as B.",
            )
        work = _witness(report, side, options) if options.witness else round_trip(report, side, options)
        opened = side, work, _forward(report, {"": side}, options)
    except VlconvError as error:  # the manifest may tell more exactly what is wrong
        if listed is None or options.dry_run:
            raise
        fault = error
    if listed is not None:
        describe_manifest(report, listed)
    _tell_abandoned(report, a)
    observer.planned(report)
    if options.dry_run:
        return report
    if listed is not None:
        report.differences = compare_files(listed, workers_of(options.threads, options.memory_bytes).threads, observer)
        describe_files(report, listed, report.differences)
        if report.differences:
            report.status = "different"
            named = len({d.tensor for d in report.differences})
            report.result = f"different: {named} files, or tensors in them, are not what {MANIFEST} says"
            report.warnings += [fault.what] if fault else []
            return report
    if opened is None:
        assert fault is not None
        raise fault
    side, work, forward = opened
    return _worked(report, work, {"": side}, options, observer, forward)


def _forward(report: Report, sides: Mapping[str, Side], options: VerifyOptions) -> Forward | None:
    """The models that are to be run, told in the report; None: none are."""
    if not options.forward:
        return None
    forward = ready(sides, options)
    describe_plan(report, forward)
    return forward


def _worked(
    report: Report,
    work: Work,
    sides: Mapping[str, Side],
    options: VerifyOptions,
    observer: Observer,
    forward: Forward | None = None,
) -> Report:
    """Run a comparison, and the models after it, and tell what came of both."""
    begin, threads = time.monotonic(), workers_of(options.threads, options.memory_bytes, most=COMPARING).threads
    with holding_sources(report, sides, threads, observer):
        found = work(threads, observer, options.values)
        seconds = time.monotonic() - begin
        ran = forward.run(observer) if forward else None
    report.status = "different" if found.differences else "same"
    describe = describe_comparison if found.elements else describe_names
    describe(report, found, seconds)
    describe_parts(report, found, [*sides.values()])
    report.heat_map = heat_map(found.names, found.differences)
    if forward and ran:
        describe_ran(report, forward, ran)
    return report


def _tell_abandoned(report: Report, *sides: SidePath) -> None:
    describe_abandoned(report, abandoned([side.path for side in sides]))


def _describe(report: Report, side: Side) -> None:
    if isinstance(side, McoreSide):
        describe_mcore(report, side)
    else:
        describe_hf(report, side)


def _pair(report: Report, a: Side, b: Side) -> Work:
    for name, side in (("A", a), ("B", b)):
        part = Report("verify", "")
        _describe(part, side)
        part.facts = [fact for fact in part.facts if fact.name in TOLD]
        add_part(report, part, name)
    if a.model.model_type != b.model.model_type:
        raise NotComparable(
            f"A is a {a.model.model_type}, B a {b.model.model_type}", "Only two copies of one model can be compared."
        )
    works = [pair_by_rule(a, b)]
    if isinstance(a, McoreSide) and isinstance(b, McoreSide) and a.layout.name == b.layout.name:
        works.append(comparing(a.reader, b.reader, list(_common(a.table.pads, b.table.pads))))
    return in_turn(*works)


def _common(ours: Iterable[Box], theirs: Iterable[Box]) -> Iterable[Box]:
    others = {box.name: box for box in theirs}
    for box in ours:
        other = others.get(box.name)
        if other is not None and other.offsets == box.offsets:  # else the vocabularies differ, which is told already
            yield box._replace(lengths=(min(box.lengths[0], other.lengths[0]), *box.lengths[1:]))


def _witness(report: Report, side: Side, options: VerifyOptions) -> Work:
    if led.get():
        raise NotComparable("a witness reads in one process alone", "Start vlconv without torchrun.")
    if options.on_disk:
        raise NotComparable("a witness and --on-disk are two checks", "Give one of them at a time.")
    assert options.witness
    return open_witness(report, side, options.witness)
