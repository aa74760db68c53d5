"""mcore2hf, hf2mcore and mcore2mcore: open a side, look at it through a table, plan the files, write them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..checkpoint.describe import describe_dialect, describe_hf, describe_mcore
from ..checkpoint.open import McoreSide, from_hf, in_dialect, mapped_table, open_hf_side, open_mcore_side
from ..config.hf_config import config_json, config_to_write
from ..config.reference import side_files
from ..formats import safetensors
from ..formats.output_file import OutFile
from ..layouts import to_write
from ..models.config import ModelConfig
from ..models.hf_dialects import Dialect
from ..options import Hf2McoreOptions, Mcore2HfOptions, Mcore2McoreOptions, McoreOutput
from ..report import Observer, Report
from ..tensors.spec import Reader
from .execute import cast, main_dtype, refuse_warned, run, threads_of
from .megatron_output import check_divides, mcore_files, rows_to_write, topology_of
from .summary import describe_output, describe_side_files, describe_target


def mcore2hf(source: Path, target: Path, options: Mcore2HfOptions, observer: Observer) -> Report:
    """Convert a Megatron checkpoint to a Hugging Face directory.

    Args:
        source: the checkpoint's directory, or one above it.
        target: the directory to write; appears complete or not at all.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    side = _opened(source, options, options.iteration, options.layout)
    dialect = Dialect(options.experts, options.hf_names)
    reader = cast(in_dialect(side.as_hf, side.config, dialect), options.dtype)
    config = config_json(
        config_to_write(side.reference.config, side.model, tied=side.config.text.tied, dtype=main_dtype(reader))
    )
    files = [
        *safetensors.plan_hf(reader.specs, options.max_shard_size),
        OutFile("config.json", len(config), literals=[(0, config)]),
    ]
    beside = side_files(side.reference.directory)
    report = Report("mcore2hf", "planned")
    describe_mcore(report, side, options.dtype)
    describe_dialect(report, side.config, dialect)
    describe_output(report, target, reader, files, threads_of(options.threads), side.as_hf)
    describe_side_files(report, beside)
    sources = [source, *([side.reference.directory] if side.reference.directory else [])]
    return run(report, reader, files, target, sources, observer, options, {"": beside.copy}, side.chunks)


def hf2mcore(source: Path, target: Path, options: Hf2McoreOptions, observer: Observer) -> Report:
    """Convert a Hugging Face directory to a Megatron checkpoint.

    Args:
        source: a Hugging Face directory with safetensors weights.
        target: the directory to write, with `release/` (or `iter_…/`) and a tracker file in it; appears complete or not
            at all.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    side = open_hf_side(source, options.experts_form)
    report = Report("hf2mcore", "planned")
    describe_hf(report, side)
    reader, files = _to_mcore(report, side.reader, side.config, side.hf_config, target, options)
    beside = side_files(source)
    describe_side_files(report, beside)
    return run(
        report,
        reader,
        files,
        target,
        [source],
        observer,
        options,
        {"huggingface": [source / "config.json", *beside.copy]},
    )


def mcore2mcore(source: Path, target: Path, options: Mcore2McoreOptions, observer: Observer) -> Report:
    """Write a Megatron checkpoint's weights in another format, topology or layout: the boxes of both tables composed, nothing in between on disk.

    Args:
        source: the checkpoint's directory, or one above it.
        target: as for hf2mcore.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    side = _opened(source, options, options.from_iteration, options.from_layout)
    if options.layout is None and options.format in side.layout.writes:
        options = replace(options, layout=side.layout.name)
    report = Report("mcore2mcore", "planned")
    describe_mcore(report, side, options.dtype)
    report.fact(
        "weights only", "optimizer, scheduler and random states stay behind: training starts anew from these weights"
    )
    reader, files = _to_mcore(report, side.as_hf, side.config, side.reference.config, target, options)
    config = config_json(
        config_to_write(side.reference.config, side.model, tied=side.config.text.tied, dtype=main_dtype(reader))
    )
    files.append(OutFile("huggingface/config.json", len(config), literals=[(0, config)]))
    beside = side_files(side.reference.directory)
    describe_side_files(report, beside)
    sources = [source, *([side.reference.directory] if side.reference.directory else [])]
    return run(report, reader, files, target, sources, observer, options, {"huggingface": beside.copy}, side.chunks)


def _opened(
    source: Path, options: Mcore2HfOptions | Mcore2McoreOptions, iteration: int | None, layout: str | None
) -> McoreSide:
    """The Megatron checkpoint to convert; with --strict its ranks must agree."""
    side = open_mcore_side(
        source,
        reference=options.reference,
        revision=options.revision,
        iteration=iteration,
        layout=layout,
        divisor=options.make_vocab_size_divisible_by,
        trust_reference=options.trust_reference,
    )
    if options.strict:
        refuse_warned(side)
    return side


def _to_mcore(
    report: Report,
    hf_reader: Reader,
    config: ModelConfig,
    hf_config: dict[str, Any],
    target: Path,
    options: McoreOutput,
) -> tuple[Reader, list[OutFile]]:
    """A reader of the tensors to write, and the files they go to; told in the report."""
    layout = to_write(options.layout, config.model_type, options.format)
    check_divides(config, layout, topology_of(options))
    rows = rows_to_write(config, options)
    reader = from_hf(cast(hf_reader, options.dtype), mapped_table(layout, config, rows))
    files, folder = mcore_files(reader.specs, config, hf_config, layout, options)
    describe_target(report, layout, options, rows - config.text.vocab, rows)
    describe_output(report, target / folder, reader, files, threads_of(options.threads), reader)
    return reader, files
