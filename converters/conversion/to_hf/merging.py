"""mcore2hf --base: an adapter that a checkpoint holds alone, merged into the model that it changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...adapters.merged import Merged
from ...checkpoint.describe import describe_hf
from ...checkpoint.hf_side import HfSide, in_dialect
from ...checkpoint.lora.adapter_side import AdapterSide, open_adapter_files
from ...checkpoint.lora.merged_side import open_merged
from ...errors import MismatchError, OptionError, shown_path
from ...formats import FORMATS
from ...formats.directory.locate import iteration_of
from ...formats.holes import refuse_holes
from ...options import Mcore2HfOptions
from ...report import Report
from ...tensors.cast import Cast
from ...tensors.spec import Reader
from ..mcore_source import refuse_disagreeing
from ..outcome import describe_merged_steps, describe_result, origin_of
from ..plan import Plan
from ..readers import merged_dtypes
from .from_mcore import hf_plan
from .output import HfWeights, describe_hf_output, form_of, hf_output

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
    packed = options.experts == "hub" and base.dialect.mtp_packed
    form = form_of(options, base.config, base.files, head_packed=packed)
    assert isinstance(base.reader, Merged)
    merged = base.reader.into(merged_dtypes(side.adapter, options.dtype))
    whole: Reader = in_dialect(merged, base.config, form.dialect)
    weights = HfWeights(
        reader=Cast(whole, options.dtype) if options.dtype else whole,
        counted=merged,
        config=base.config,
        hf_config=base.hf_config,
        beside=base.directory,
        files=base.files,
        steps=[base.step] if base.step else [],
        merged=merged,
    )
    output = hf_output(weights, form, options)
    report = Report("mcore2hf", "planned")
    _describe_base(report, base)
    describe_hf_output(report, weights, form, output, target, options)
    describe_result(report, target, base.config, origin_of(side.alone.directory))
    describe_merged_steps(report, base, target, options, options.dtype)
    source, sources = side.alone.directory, [form.fp8.directory] if form.fp8 else []
    plan = Plan(report, output.reader, output.files, target, source, sources, {"": output.beside.copy})
    return replace(plan, checkpoints=base.checkpoints, seen=base.files, steps=output.steps, merged=merged)


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
