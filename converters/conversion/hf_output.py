"""A Megatron checkpoint as a Hugging Face directory: what is written, planned; and what other targets take of it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from ..checkpoint.describe import describe_computed, describe_mcore, describe_reference_dtypes
from ..checkpoint.describe_model import describe_dialect
from ..checkpoint.fp8.form import Fp8Form, describe_fp8, fp8_form
from ..checkpoint.lora.describe_adapter import describe_merging
from ..checkpoint.mcore_side import McoreSide
from ..config.hf_config import config_json, config_to_write
from ..config.quantization import with_quantization
from ..config.reference import side_files
from ..errors import MismatchError, shown_path
from ..formats import safetensors
from ..formats.holes import refuse_holes
from ..formats.opened import Opened
from ..formats.output_file import OutFile
from ..models.shared.hf_dialects import Dialect, one_by_one_is_read
from ..options import Mcore2HfOptions
from ..report import Report
from ..tensors.counting import Rounding
from ..tensors.dtypes import main_dtype
from ..tensors.spec import Reader
from ..workers import workers_of
from .outcome import NEEDED, describe_hf_steps, describe_result, origin_of
from .plan import Plan
from .readers import hf_dtypes, hf_reader, merged_dtypes
from .summary import describe_output, describe_side_files

ONE_BY_ONE = (
    "experts are written one by one: vLLM and SGLang read this form, transformers 4.57 to 5.24 makes up its experts or "
    "fails; leave --experts out for transformers"
)


def hf_plan(side: McoreSide, source: Path, target: Path, options: Mcore2HfOptions) -> Plan:
    """The plan of a Megatron checkpoint's conversion.

    Args:
        side: the checkpoint.
        source: what the user gave.
        target: the directory to write.
        options: of the conversion.

    Raises:
        MismatchError, CorruptError: --strict, and something is only warned of else.
    """
    if options.strict:
        refuse_warned(side)
    with side.files.noting():
        form = fp8_form(str(options.fp8_like), side.whole) if options.fp8_like else None
    packed = options.experts == "hub" and side.head_packed
    dialect = form.dialect if form else Dialect(options.experts, options.hf_names, packed)
    dtypes = hf_dtypes(side, options.dtype, form)
    view = side.to_hf(dtypes=dtypes, merged=merged_dtypes(side.adapter, options.dtype))
    reader = hf_reader(side, view.reader, dialect, options.dtype)
    steps: list[Rounding] = [view.step, *dequantising(side)]
    config = config_file(side, reader, "config.json", form)
    if form:
        plain, reader = form.written(reader)
        steps += [plain, reader]
    files = [*safetensors.plan_hf(reader.specs, options.shard_bytes), config]
    with side.files.noting():
        beside = side_files(side.known.reference.directory, side.model.traits.tower)
    report = Report("mcore2hf", "planned")
    describe_mcore(report, side, options.dtype)
    describe_computed(report, [view.step])
    if view.merged:
        describe_merging(report, view.merged)
    if form:
        describe_fp8(report, form)
    elif not options.dtype:
        describe_reference_dtypes(report, side, dtypes)
    describe_dialect(report, side.whole, dialect)
    if side.config.text.experts and not one_by_one_is_read(dialect, side.model.traits):
        report.warnings.append(ONE_BY_ONE)
    counted = side.with_carried(view.reader)
    describe_output(report, target, reader, files, workers_of(options.threads, options.memory_bytes), counted)
    describe_side_files(report, beside, NEEDED)
    origin = side.apart.alone.directory if side.apart else side.directory
    describe_result(report, target, side.whole, origin_of(origin))
    describe_hf_steps(report, side, target, options, options.dtype)
    sources = [*sources_of(source, side), *([form.directory] if form else [])]
    plan = Plan(report, reader, files, target, source, sources, {"": beside.copy}, steps=steps)
    return of_mcore(replace(plan, merged=view.merged), side)


def dequantising(side: McoreSide) -> list[Rounding]:
    """What makes plain tensors of FP8 ones that go along."""
    carried = side.known.carried
    return [carried.step] if carried and carried.step else []


def of_mcore(plan: Plan, side: McoreSide) -> Plan:
    """The plan, with what is checked of a Megatron checkpoint while it is read."""
    return replace(plan, chunks=side.chunks, seen=side.files, integrity=side.opened.integrity)


def refuse_warned(side: McoreSide) -> None:
    """--strict takes no checkpoint whose ranks disagree or whose files have holes.

    Raises:
        MismatchError: tensors that ranks hold whole differ among them.
        CorruptError: bytes of tensors were never written.
    """
    refuse_holes(side.chunks.holes)
    refuse_disagreeing(side.opened)


def refuse_disagreeing(opened: Opened) -> None:
    """--strict takes no checkpoint whose ranks disagree; raises MismatchError."""
    if opened.warnings:
        listed = "\n".join(f"  {line}" for line in opened.warnings[:10])
        raise MismatchError(
            f"{shown_path(opened.directory)}: ranks disagree:\n{listed}",
            "Without --strict the first one is taken, with a warning.",
        )


def sources_of(source: Path, side: McoreSide) -> list[Path]:
    """What the output is made of: files that go along may be links to another folder, as in the Hub's cache."""
    reference, carried = side.known.reference.directory, side.known.carried
    folders = {Path(os.path.realpath(file)).parent for file in carried.files} if carried else set()
    return [source, *([reference] if reference else []), *sorted(folders)]


def config_file(side: McoreSide, reader: Reader, name: str, form: Fp8Form | None = None) -> OutFile:
    """The config.json that goes with a checkpoint's weights; of FP8 ones its dtype is that of what stays plain."""
    known = side.known
    others = known.carried.others.specs if known.carried else {}
    plain = form.plain_specs if form else reader.specs
    dtype = main_dtype({n: spec for n, spec in plain.items() if n not in others})
    found = config_to_write(known.reference.config, known.model, tied=known.whole.text.tied, dtype=dtype)
    if form:
        found = with_quantization(found, form.quantization)
    return small_file(name, config_json(found))


def small_file(name: str, data: bytes) -> OutFile:
    """A file that is written from memory."""
    return OutFile(name, len(data), literals=[(0, data)])
