"""repair: a Hugging Face directory in which another tool mixed numbers up, written again with that undone."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..checkpoint.absent.union import Union, only
from ..checkpoint.describe import describe_hf
from ..checkpoint.hf_side import HfSide, in_dialect, open_hf_side
from ..checkpoint.mcore_side import McoreSide
from ..config.facts import runtime_facts
from ..config.reference import side_files
from ..conversion.execute import execute
from ..conversion.outcome import NEEDED, describe_result, origin_of
from ..conversion.plan import Plan
from ..conversion.summary import describe_output, describe_side_files
from ..errors import OptionError, ReadError, UnsupportedError, naming_missing_libraries, shown_path
from ..formats import is_mcore, safetensors
from ..options import RepairOptions, VerifyOptions
from ..report import Observer, Report, Step
from ..tensors.spec import Reader
from ..verification.comparison.by_rule import pair_by_rule
from ..verification.comparison.compare import Comparison
from ..verification.diagnosis.diagnosis import Diagnosis
from ..verification.side_path import SidePath, side_path
from ..verification.sides import open_pair
from ..workers import workers_of
from .same_files import same_files
from .undone import HARMLESS, Undone, by_diagnosis, by_names, check_nearer, repaired

Side = HfSide | McoreSide


@naming_missing_libraries()
def repair(source: Path, target: Path, options: RepairOptions, observer: Observer) -> Report:
    """Write a Hugging Face directory again, with known permutations of its numbers undone.

    Every other number, every header and every file beside the weights stays byte for byte as it is.

    Args:
        source: the directory that another tool wrote.
        target: the directory to write; appears complete or not at all.

    Raises:
        OptionError: neither --like nor --undo is given, or --like is the source.
        MismatchError: what is wrong is not known, not known exactly, or not the only thing.
        VlconvError: see errors.py; nothing is written then.
    """
    if options.like is None and not options.undo:
        raise OptionError(
            "neither --like nor --undo says what is wrong",
            "Give a model of the same base with --like, or the name of the fault with --undo.",
        )
    like, side = _opened(source, options)
    if side.step is not None:
        raise UnsupportedError(
            f"{shown_path(source)} is FP8, and only plain weights are repaired: rows would leave their scales behind",
            "Repair the weights that it was made of, and quantise those again.",
        )
    runtime_facts(side.hf_config, side.config)  # as a conversion: what no program could run is not written again
    left: list[Diagnosis] = []
    if options.undo:
        undone = by_names(options.undo, side.config)
    else:
        found = _compared(like, side, options, observer)
        undone = by_diagnosis(found.diagnoses, side.config, found.differences)
        left = [one for one in found.diagnoses if one.name in HARMLESS]
    good = repaired(side.reader, undone)
    if like is not None and options.undo:
        check_nearer(_on_hub(like), good, undone)
    plan = _plan(side, source, target, like, undone, good, options)
    _tell_left(plan.report, left)
    return execute(plan, options, observer)


def _opened(source: Path, options: RepairOptions) -> tuple[Side | None, HfSide]:
    if not source.is_dir():
        what = "is no directory" if source.exists() else "does not exist"
        raise ReadError(f"{shown_path(source)} {what}", "Give the Hugging Face directory that is to be repaired.")
    if options.like is None or not (safetensors.holds(source) or is_mcore(source)):
        return None, open_hf_side(source)
    if Path(options.like).exists() and Path(options.like).samefile(source):
        raise OptionError(
            f"--like is the source itself, {shown_path(source)}", "Give the model that it is to be, or one of its base."
        )
    like, side = open_pair(side_path(options.like), SidePath(source), VerifyOptions())
    if not isinstance(side, HfSide):
        raise UnsupportedError(
            f"{shown_path(source)} is a Megatron checkpoint, and repair is about Hugging Face directories",
            "Convert it with mcore2hf.",
        )
    return like, side


def _compared(like: Side | None, side: HfSide, options: RepairOptions, observer: Observer) -> Comparison:
    """With the model of the same base."""
    assert like is not None
    with like.files.held(), side.files.held():
        threads = workers_of(options.threads, options.memory_bytes).threads
        return pair_by_rule(like, side)(threads, observer, False)


def _on_hub(side: Side) -> Reader:
    return side.as_hf if isinstance(side, McoreSide) else side.reader


def _plan(
    side: HfSide,
    source: Path,
    target: Path,
    like: Side | None,
    undone: list[Undone],
    good: Reader,
    options: RepairOptions,
) -> Plan:
    spelled: Reader = in_dialect(good, side.config, side.dialect)
    others = side.chunks.specs.keys() - spelled.specs.keys()  # a tied model's second output layer
    reader = Union(spelled, only(side.chunks, others)) if others else spelled
    with side.files.noting():
        files = same_files(side.directory)
        beside = side_files(side.directory, side.model.traits.tower)
    report = Report("repair", "planned")
    describe_hf(report, side)
    _describe(report, like, undone, options)
    describe_output(report, target, reader, files, workers_of(options.threads, options.memory_bytes), reader)
    describe_side_files(report, beside, NEEDED)
    describe_result(report, target, side.config, origin_of(side.directory))
    if like is not None:
        words = ["vlconv verify", *(shlex.quote(shown_path(path)) for path in (like.directory, target))]
        report.steps.append(Step("verify", " ".join(words)))
    sources = [source, *([like.directory] if like else [])]
    # What an ended run left is gone on with only where the other model is the same, too: by it was seen what to undo.
    seen = side.files.joined(like.files) if like else side.files
    return Plan(report, reader, files, target, source, sources, {"": beside.copy}, seen=seen)


def _describe(report: Report, like: Side | None, undone: list[Undone], options: RepairOptions) -> None:
    """What is undone, and on whose word."""
    shown_by = f"as {shown_path(like.directory)} shows" if like else ""
    near = f", and near {shown_path(like.directory)} then" if like else ""
    word = f"as --undo says{near}" if options.undo else shown_by
    lines = [f"{one.fault.name} undone in {len(one.tensors)} tensors, {word}: {one.fault.says}" for one in undone]
    told = [{"undone": one.fault.name, "says": one.fault.says, "tensors": one.tensors} for one in undone]
    report.fact("repaired", "\n".join(lines), repaired=told)


def _tell_left(report: Report, left: list[Diagnosis]) -> None:
    """What differs from the model of --like in another way, and stays so."""
    lines = [f"{len(one.tensors)} tensors: {one.says}" for one in left]
    if lines:
        told = [{"says": one.says, "tensors": one.tensors} for one in left]
        report.fact("left_as_it_is", "\n".join(lines), left_as_it_is=told)
