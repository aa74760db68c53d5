"""verify: two models held against each other, or one against its round trip or a witness.

Two models of either side held against each other bit by bit, or one against its own round trip, or against what a
foreign reader makes of it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path

from ..checkpoint.describe import describe_hf, describe_mcore
from ..checkpoint.hf_side import HfSide, open_hf_side
from ..checkpoint.lora.adapter_side import open_adapter_files
from ..checkpoint.lora.merged_side import open_merged
from ..checkpoint.mcore_side import McoreSide, open_mcore_side
from ..errors import NotComparable, VlconvError, naming_missing_libraries, shown_path
from ..formats import safetensors
from ..formats.directory.contents import MANIFEST
from ..options import VerifyOptions
from ..output.staging.ended import abandoned, describe_abandoned
from ..ranks.lead import led
from ..report import Observer, Report, Step
from ..tensors.dtypes import main_dtype
from ..tensors.spec import Box
from ..workers import workers_of
from .by_rule import pair_by_rule
from .compare import Work, comparing, in_turn
from .files import compare_files, describe_files, describe_manifest, manifest_about
from .heat import heat_map
from .like.like import held_like
from .parts import describe_parts
from .round_trip import round_trip
from .side_path import SidePath, refuse_same, side_path
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
    first, second = open_pair(a, b, options)
    work = _pair(report, first, second)
    _tell_abandoned(report, a, b)
    observer.planned(report)
    if options.dry_run:
        return report
    _worked(report, work, {"A": first, "B": second}, options, observer)
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
    opened: tuple[Side, Work] | None = None
    fault: VlconvError | None = None
    try:
        side = open_side(a, options, 0)
        _describe(report, side)
        if side.adapter:
            raise NotComparable(
                "what an adapter is merged into does not come back: there is no round trip, and no witness reads it",
                "Give the merged directory as B.",
            )
        opened = side, _witness(report, side, options) if options.witness else round_trip(report, side, options)
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
    return _worked(report, opened[1], {"": opened[0]}, options, observer)


def _worked(
    report: Report, work: Work, sides: Mapping[str, Side], options: VerifyOptions, observer: Observer
) -> Report:
    """Run a comparison, and tell what came of it."""
    begin, threads = time.monotonic(), workers_of(options.threads, options.memory_bytes, most=COMPARING).threads
    with holding_sources(report, sides, threads, observer):
        found = work(threads, observer, options.values)
    report.status = "different" if found.differences else "same"
    describe = describe_comparison if found.elements else describe_names
    describe(report, found, time.monotonic() - begin)
    describe_parts(report, found, [*sides.values()])
    report.heat_map = heat_map(found.names, found.differences)
    return report


def _tell_abandoned(report: Report, *sides: SidePath) -> None:
    describe_abandoned(report, abandoned([side.path for side in sides]))


def open_side(
    named: SidePath,
    options: VerifyOptions,
    number: int,
    beside: Path | None = None,
    *,
    filling: bool = False,
    fp8_as: str = "bfloat16",
) -> Side:
    """Open a directory as what it is.

    Args:
        named: a Megatron or Hugging Face directory, and which of its iterations.
        options: how it is read.
        number: 0 for A, 1 for B: which of the references is meant.
        beside: a Hugging Face directory to fall back on as reference.
        filling: what goes along is asked for both sides, and one that holds it itself does without.
        fp8_as: the dtype that FP8 tensors of a Hugging Face directory are made plain in.
    """
    if safetensors.holds(named.path):
        return open_hf_side(
            named.path,
            options.experts_form,
            options.mtp_of_hf,
            options.carry,
            no_output_layer=options.no_output_layer,
            fp8_as=fp8_as,
        )
    asked = options.source(number, named.iteration)
    if options.base is not None and (alone := open_adapter_files(named.path, asked)):
        return open_merged(alone, options.base, asked, options.experts_form)[1]
    if asked.reference or not beside:
        return open_mcore_side(named.path, asked, filling=filling)
    side = open_mcore_side(named.path, replace(asked, reference=beside), filling=filling)
    found = side.known.reference._replace(said="the other side")
    return replace(side, known=replace(side.known, reference=found))


def open_pair(a: SidePath, b: SidePath, options: VerifyOptions) -> tuple[Side, Side]:
    """Open both; where only one is a Hugging Face directory it serves the other as reference.

    Raises:
        NotComparable: both are one directory.
    """
    beside = [named.path if safetensors.holds(named.path) else None for named in (b, a)]
    first, second = (
        open_side(named, options, number, beside[number], filling=True) for number, named in enumerate((a, b))
    )
    refuse_same(first.directory, second.directory)
    if options.base is not None and not any(_apart(side) for side in (first, second)):
        raise NotComparable("--base is of an adapter alone, and neither side is one", "Leave it out.")
    return _as_wide(first, second, a, options), _as_wide(second, first, b, options)


def _as_wide(side: Side, other: Side, named: SidePath, options: VerifyOptions) -> Side:
    """An FP8 side as the other one needs it: in float32 where that is FP8, too, or float32."""
    if not isinstance(side, HfSide) or side.step is None or side.adapter:
        return side
    fp8 = isinstance(other, HfSide) and other.step is not None
    if not fp8 and main_dtype(other.reader.specs) == "bfloat16":
        return side
    return open_side(named, options, 0, fp8_as="float32")


def _apart(side: Side) -> bool:
    """Whether it is an adapter alone, with its base."""
    return bool(side.apart if isinstance(side, McoreSide) else side.adapter)


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
