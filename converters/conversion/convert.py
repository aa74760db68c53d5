"""mcore2hf, hf2mcore and mcore2mcore: open a side, look at it through a table, plan the files, write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from ..checkpoint.describe import describe_dialect, describe_hf, describe_mcore
from ..checkpoint.hf_side import in_dialect, open_hf_side
from ..checkpoint.mapping import from_hf, mapped_table
from ..checkpoint.mcore_side import McoreSide, open_mcore_side
from ..config.hf_config import config_json, config_to_write
from ..config.reference import side_files
from ..errors import MismatchError, UnsupportedError, naming_missing_libraries, shown_path
from ..formats import safetensors
from ..formats.holes import refuse_holes
from ..formats.output_file import OutFile
from ..layouts import known_layouts, to_write
from ..models.shared.config import ModelConfig
from ..models.shared.hf_dialects import Dialect
from ..options import Hf2McoreOptions, Mcore2HfOptions, Mcore2McoreOptions, McoreTarget
from ..report import Observer, Report
from ..tensors.cast import Cast
from ..tensors.dtypes import main_dtype
from ..tensors.spec import Reader
from .execute import execute
from .fill import threads_of
from .megatron_output import McoreFiles, check_divides, mcore_files, rows_to_write, topology_of
from .plan import Plan
from .same_model import check_same_model
from .summary import describe_links, describe_output, describe_side_files, describe_target

ONE_BY_ONE = (
    "experts are written one by one: vLLM and SGLang read this form, transformers 4.57 to 5.24 makes up its experts or "
    "fails; leave --experts out for transformers"
)


@naming_missing_libraries()
def mcore2hf(source: Path, target: Path, options: Mcore2HfOptions, observer: Observer) -> Report:
    """Convert a Megatron checkpoint to a Hugging Face directory.

    Args:
        source: the checkpoint's directory, or one above it.
        target: the directory to write; appears complete or not at all.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    side = open_mcore_side(source, options)
    if options.strict:
        refuse_warned(side)
    dialect = Dialect(options.experts, options.hf_names)
    reader = _cast(in_dialect(side.as_hf, side.config, dialect), options.dtype)
    files = [*safetensors.plan_hf(reader.specs, options.shard_bytes), _config_file(side, reader, "config.json")]
    with side.files.noting():
        beside = side_files(side.known.reference.directory)
    report = Report("mcore2hf", "planned")
    describe_mcore(report, side, options.dtype)
    describe_dialect(report, side.config, dialect)
    if side.config.text.experts and dialect.experts == "per-expert":
        report.warnings.append(ONE_BY_ONE)
    describe_output(report, target, reader, files, threads_of(options.threads), side.as_hf)
    describe_side_files(report, beside)
    plan = Plan(report, reader, files, target, source, _sources(source, side), {"": beside.copy})
    return execute(_of_mcore(plan, side), options, observer)


@naming_missing_libraries()
def hf2mcore(source: Path, target: Path, options: Hf2McoreOptions, observer: Observer) -> Report:
    """Convert a Hugging Face directory to a Megatron checkpoint.

    Args:
        source: a Hugging Face directory with safetensors weights.
        target: the directory to write, with `release/` (or `iter_…/`) and a tracker file in it; appears complete or not
            at all. With as_iteration, in a save directory that is there, that iteration appears complete or not at all.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    side = open_hf_side(source, options.experts_form)
    if options.strict:
        refuse_holes(side.chunks.holes)
    report = Report("hf2mcore", "planned")
    describe_hf(report, side)
    reader, output = _megatron(report, _Weights(side.reader, side.config, side.hf_config), target, options)
    with side.files.noting():
        beside = side_files(source)
    describe_side_files(report, beside)
    copied = {"huggingface": [source / "config.json", *beside.copy]}
    plan = Plan(report, reader, output.files, target, source, [source], copied, links=output.links, seen=side.files)
    return execute(plan, options, observer)


@naming_missing_libraries()
def mcore2mcore(source: Path, target: Path, options: Mcore2McoreOptions, observer: Observer) -> Report:
    """Write a Megatron checkpoint's weights in another format, topology or layout.

    The boxes of both tables are composed: nothing lies in between on disk.

    Args:
        source: the checkpoint's directory, or one above it.
        target: as for hf2mcore.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    side = open_mcore_side(source, options)
    if options.strict:
        refuse_warned(side)
    report = Report("mcore2mcore", "planned")
    describe_mcore(report, side, options.dtype)
    report.fact(
        "weights_only", "optimizer, scheduler and random states stay behind: training starts anew from these weights"
    )
    weights = _Weights(side.as_hf, side.config, side.known.reference.config)
    layout = options.as_layout or _same_layout(side, options)
    reader, output = _megatron(report, weights, target, replace(options, as_layout=layout))
    files = [*output.files, _config_file(side, reader, "huggingface/config.json")]
    with side.files.noting():
        beside = side_files(side.known.reference.directory)
    describe_side_files(report, beside)
    copied = {"huggingface": beside.copy}
    plan = Plan(report, reader, files, target, source, _sources(source, side), copied, links=output.links)
    return execute(_of_mcore(plan, side), options, observer)


def _of_mcore(plan: Plan, side: McoreSide) -> Plan:
    """The plan, with what is checked of a Megatron checkpoint while it is read."""
    return replace(plan, chunks=side.chunks, seen=side.files, integrity=side.opened.integrity)


def refuse_warned(side: McoreSide) -> None:
    """--strict takes no checkpoint whose ranks disagree or whose files have holes.

    Raises:
        MismatchError: tensors that ranks hold whole differ among them.
        CorruptError: bytes of tensors were never written.
    """
    refuse_holes(side.chunks.holes)
    if side.opened.warnings:
        listed = "\n".join(f"  {line}" for line in side.opened.warnings[:10])
        raise MismatchError(
            f"{shown_path(side.directory)}: ranks disagree:\n{listed}",
            "Without --strict the first one is taken, with a warning.",
        )


def _same_layout(side: McoreSide, options: McoreTarget) -> str:
    """The source's own naming: another trainer's is written only when it is asked for.

    Raises:
        UnsupportedError: that trainer does not read the format.
    """
    layout = side.layout
    if options.format not in layout.writes:
        known = ", ".join(known_layouts(side.config.model_type, options.format))
        raise UnsupportedError(
            f"the source is in layout {layout.name} ({layout.trainers}), which is not written as {options.format}",
            f"Say in whose names to write it: --as-layout {known}.".replace(", ", " or --as-layout "),
        )
    return layout.name


def _sources(source: Path, side: McoreSide) -> list[Path]:
    reference = side.known.reference.directory
    return [source, *([reference] if reference else [])]


def _cast(reader: Reader, dtype: str | None) -> Reader:
    """The reader, with --dtype applied."""
    return Cast(reader, dtype) if dtype else reader


def _config_file(side: McoreSide, reader: Reader, name: str) -> OutFile:
    """The config.json that goes with a checkpoint's weights."""
    known = side.known
    found = config_to_write(
        known.reference.config, known.model, tied=known.config.text.tied, dtype=main_dtype(reader.specs)
    )
    data = config_json(found)
    return OutFile(name, len(data), literals=[(0, data)])


class _Weights(NamedTuple):
    """A model's weights under the Hub's names, wherever they lie."""

    reader: Reader
    config: ModelConfig
    hf_config: dict[str, Any]


def _megatron(report: Report, weights: _Weights, target: Path, options: McoreTarget) -> tuple[Reader, McoreFiles]:
    """A reader of the tensors to write, and the files they go to; told in the report."""
    hf_reader, config, hf_config = weights
    if options.as_iteration is not None:
        check_same_model(target, config)
    layout = to_write(options.as_layout, config.model_type, options.format)
    check_divides(config, layout, topology_of(options))
    rows = rows_to_write(config, options)
    reader = from_hf(_cast(hf_reader, options.dtype), mapped_table(layout, config, rows))
    output = mcore_files(reader.specs, config, hf_config, layout, options)
    describe_target(report, layout, options, rows - config.text.vocab, rows)
    describe_output(report, target / output.folder, reader, output.files, threads_of(options.threads), reader)
    describe_links(report, output.links)
    return reader, output
