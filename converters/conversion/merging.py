"""mcore2hf --base: an adapter that a checkpoint holds alone, merged into the model that it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..adapters.merged import Merged
from ..checkpoint.describe import describe_hf
from ..checkpoint.describe_model import describe_dialect
from ..checkpoint.fp8.form import describe_fp8, fp8_form
from ..checkpoint.hf_side import HfSide, in_dialect
from ..checkpoint.lora.adapter_side import AdapterSide, open_adapter_files
from ..checkpoint.lora.describe_adapter import describe_merging
from ..checkpoint.lora.merged_side import open_merged
from ..config.hf_config import config_json, config_to_write
from ..config.quantization import with_quantization
from ..config.reference import side_files
from ..errors import MismatchError, OptionError, shown_path
from ..formats import FORMATS, safetensors
from ..formats.directory.locate import iteration_of
from ..formats.holes import refuse_holes
from ..models.shared.hf_dialects import Dialect, one_by_one_is_read
from ..options import Mcore2HfOptions
from ..report import Report
from ..tensors.cast import Cast
from ..tensors.counting import Rounding
from ..tensors.dtypes import main_dtype
from ..tensors.spec import Reader
from ..workers import workers_of
from .hf_output import ONE_BY_ONE, hf_plan, refuse_disagreeing, small_file
from .outcome import NEEDED, describe_merged_steps, describe_result, origin_of
from .plan import Plan
from .readers import merged_dtypes
from .summary import describe_output, describe_side_files

OF_OUTPUT = ("experts", "hf_names")
"""What is said of a Hugging Face directory that is read, and here of the one that is written."""


def merging_plan(source: Path, target: Path, options: Mcore2HfOptions) -> Plan:
    """The plan of merging an adapter into its base.

    Args:
        source: the adapter's checkpoint.
        target: the directory to write.
        options: of the conversion, with a base.

    Raises:
        MismatchError: the source holds its base, or is no adapter.
        VlconvError: see errors.py.
    """
    assert options.base is not None
    alone = open_adapter_files(source, options)
    if alone is None:
        raise MismatchError(
            f"{shown_path(source)} holds a model, and no adapter alone",
            "Leave --base out: an adapter beside its base is merged as well.",
        )
    side, base = open_merged(alone, options.base, options)
    if options.strict:
        refuse_holes(side.chunks.holes)
        refuse_disagreeing(alone.opened)
    if isinstance(base, HfSide):
        plan = _into_hf(side, base, target, options)
    else:
        plan = hf_plan(base, base.directory, target, options)
    _describe_source(plan.report, side)
    return replace(plan, source=source, sources=[source, base.directory, *plan.sources])


def _into_hf(side: AdapterSide, base: HfSide, target: Path, options: Mcore2HfOptions) -> Plan:
    """The plan of a base that is a Hugging Face directory.

    Raises:
        OptionError: something is to be taken from a reference, and there is none beside the base.
        CorruptError: --strict, and it has holes.
    """
    asked = {"--carry": options.carry, "--mtp carry": options.mtp == "carry", "--reference": options.reference}
    if given := [name for name, value in asked.items() if value]:
        raise OptionError(
            f"{given[0]} is about a Megatron checkpoint, and the base is a Hugging Face directory", "Leave it out."
        )
    if options.strict:
        refuse_holes(base.chunks.holes)
    with base.files.noting():
        form = fp8_form(str(options.fp8_like), base.config) if options.fp8_like else None
    packed = options.experts == "hub" and base.dialect.mtp_packed
    dialect = form.dialect if form else Dialect(options.experts, options.hf_names, packed)
    assert isinstance(base.reader, Merged)
    merged = base.reader.into(merged_dtypes(side.adapter, options.dtype))
    whole: Reader = in_dialect(merged, base.config, dialect)
    reader = Cast(whole, options.dtype) if options.dtype else whole
    dtype = main_dtype(form.plain_specs if form else reader.specs)
    config = config_to_write(base.hf_config, base.model, tied=base.config.text.tied, dtype=dtype)
    steps: list[Rounding] = [base.step] if base.step else []
    if form:
        config = with_quantization(config, form.quantization)
        plain, reader = form.written(reader)
        steps += [plain, reader]
    files = [*safetensors.plan_hf(reader.specs, options.shard_bytes), small_file("config.json", config_json(config))]
    with base.files.noting():
        beside = side_files(base.directory, base.model.traits.tower)
    report = Report("mcore2hf", "planned")
    _describe_base(report, base)
    describe_merging(report, merged)
    if form:
        describe_fp8(report, form)
    describe_dialect(report, base.config, dialect)
    if base.config.text.experts and not one_by_one_is_read(dialect, base.model.traits):
        report.warnings.append(ONE_BY_ONE)
    describe_output(report, target, reader, files, workers_of(options.threads, options.memory_bytes), merged)
    describe_side_files(report, beside, NEEDED)
    describe_result(report, target, base.config, origin_of(side.alone.directory))
    describe_merged_steps(report, base, target, options, options.dtype)
    return Plan(
        report,
        reader,
        files,
        target,
        side.alone.directory,
        [],
        {"": beside.copy},
        chunks=side.chunks,
        seen=base.files,
        integrity=side.alone.opened.integrity,
        steps=steps,
        merged=merged,
    )


def _describe_source(report: Report, side: AdapterSide) -> None:
    """The adapter is what a user gave, and what was told as the source is its base."""
    opened, directory = side.alone.opened, side.alone.directory
    facts = [fact._replace(name="base") if fact.name == "source" else fact for fact in report.facts]
    base = report.data["source"]
    report.fact(
        "source",
        f"{shown_path(directory)}: {FORMATS[opened.format].title}, an adapter alone",
        source=str(directory),
        format=opened.format,
        form=opened.form,
        iteration=iteration_of(directory),
        layout=side.layout.name,
        base=base,
    )
    report.facts = [report.facts[-1], *facts]


def _describe_base(report: Report, base: HfSide) -> None:
    """What is said of a Hugging Face base, but for what is said of the output."""
    part = Report("", "")
    describe_hf(part, base)
    report.facts += [fact for fact in part.facts if fact.name not in OF_OUTPUT]
    report.warnings += part.warnings
    report.data |= part.data
