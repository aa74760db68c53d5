"""mcore2hf, hf2mcore and mcore2mcore: open a side, look at it through a table, plan the files, write them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..checkpoint.describe import describe_computed, describe_hf, describe_mcore
from ..checkpoint.hf_side import HfReading, HfSide, open_hf_side
from ..checkpoint.hub_source import adapter_directory, hf_directory
from ..checkpoint.lora.describe_adapter import describe_merging
from ..checkpoint.mapping import mapped_table
from ..checkpoint.mcore_side import McoreSide, open_mcore_side
from ..config.hf_config import config_json
from ..config.reference import side_files
from ..errors import MismatchError, UnsupportedError, naming_missing_libraries, shown
from ..formats.directory.contents import CONFIG, HF_FILES
from ..formats.holes import refuse_holes
from ..formats.output_file import OutFile, small_file
from ..layouts import known_layouts, named, to_write
from ..layouts.layout import Layout
from ..layouts.shared.divisions import check_divides
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..options import Hf2McoreOptions, Mcore2HfOptions, Mcore2McoreOptions, McoreTarget
from ..report import Observer, Report
from ..tensors.dtypes import main_dtype
from ..tensors.offset import Offset
from ..tensors.spec import Reader
from ..workers import workers_of
from .execute import execute
from .mcore_source import dequantising, of_mcore, refuse_warned, sources_of
from .outcome import describe_mcore_steps, describe_result, origin_of
from .plan import Plan
from .readers import Weights, kept_less_one, mcore_reader, merged_dtypes, refuse_unlisted
from .summary import describe_links, describe_output, describe_side_files, describe_target
from .to_hf.from_mcore import hf_plan
from .to_hf.output import config_file
from .to_mcore.same_model import check_same_model

if TYPE_CHECKING:
    from .to_mcore.output import McoreFiles


@naming_missing_libraries()
def mcore2hf(source: Path, target: Path, options: Mcore2HfOptions, observer: Observer) -> Report:
    """Convert a Megatron checkpoint to a Hugging Face directory.

    Args:
        source: the checkpoint's directory, or one above it.
        target: the directory to write; appears complete or not at all.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    if options.adapter:
        from .lora.peft_output import peft_plan  # seldom, as are all that begin with an adapter

        return execute(peft_plan(source, target, options), options, observer)
    if options.base is not None:
        from .to_hf.merging import merging_plan

        return execute(merging_plan(source, target, options), options, observer)
    return execute(hf_plan(open_mcore_side(source, options), source, target, options), options, observer)


@naming_missing_libraries()
def hf2mcore(source: str | os.PathLike[str], target: Path, options: Hf2McoreOptions, observer: Observer) -> Report:
    """Convert a Hugging Face directory to a Megatron checkpoint.

    Args:
        source: a Hugging Face directory with safetensors weights, or text that names a repository of the Hub.
        target: the directory to write, with `release/` (or `iter_…/`) and a tracker file in it; appears complete or not
            at all. With as_iteration, in a save directory that is there, that iteration appears complete or not at all.

    Raises:
        VlconvError: see errors.py; nothing is written then.
    """
    if options.adapter:
        from .lora.peft_input import adapter_plan

        return execute(adapter_plan(adapter_directory(source), target, options), options, observer)
    directory = hf_directory(source)
    # Of what is wider than bfloat16 the exact numbers; float16 is then rounded to once.
    fp8_as = "bfloat16" if options.dtype in (None, "bfloat16") else "float32"
    reading = HfReading(options.experts_form, options.mtp, no_output_layer=options.no_output_layer, fp8_as=fp8_as)
    side = open_hf_side(directory, reading)
    if options.strict:
        refuse_holes(side.chunks.holes)
    report = Report("hf2mcore", "planned")
    describe_hf(report, side)
    if not options.dtype:
        _tell_wide(report, side)
    reader, output = _megatron(report, Weights(side.reader, side.config, side.hf_config), target, options)
    describe_result(report, target, side.config, origin_of(side.directory))
    describe_mcore_steps(report, _written_in(options, side.config), side, target, output.folder, options)
    with side.files.noting():
        beside = side_files(directory, model_of(side.config).traits.tower)
    describe_side_files(report, beside)
    files, copied = output.files, [directory / CONFIG, *beside.copy]
    if side.restated:
        files, copied = [*files, small_file(f"{HF_FILES}/{CONFIG}", config_json(side.hf_config))], beside.copy
    plan = Plan(
        report,
        reader,
        files,
        target,
        directory,
        [directory],
        {HF_FILES: copied},
        links=output.links,
        seen=side.files,
        steps=[*([side.step] if side.step else []), reader],
    )
    return execute(plan, options, observer)


def _tell_wide(report: Report, side: HfSide) -> None:
    """What Megatron will make of tensors that releases hold in float32."""
    names = [n for n in side.model.float32_tensors(side.config) if side.reader.specs[n].dtype == "float32"]
    main = main_dtype(side.reader.specs)
    if names and main != "float32":
        report.fact(
            "held_as",
            f"{len(names)} float32 tensors among {main} are kept so ({shown(names[0])} is one); Megatron holds them in "
            "its parameters' dtype once it has loaded them",
            float32_tensors=names,
        )


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
    layout = options.as_layout or _same_layout(side, options)
    refuse_unlisted(side)
    kept = kept_less_one(side, layout)
    view = side.to_hf(leave=kept, merged=merged_dtypes(side.adapter, options.dtype))
    if view.merged:
        describe_merging(report, view.merged)
    weights = Weights(side.with_carried(view.reader), side.whole, side.known.reference.config, kept, view.step)
    reader, output = _megatron(report, weights, target, replace(options, as_layout=layout))
    describe_result(report, target, side.whole, origin_of(side.directory))
    describe_mcore_steps(report, named(layout), side, target, output.folder, options)
    files = [*output.files, _hf_config_file(side, reader)]
    with side.files.noting():
        beside = side_files(side.known.reference.directory, side.model.traits.tower)
    describe_side_files(report, beside)
    copied = {HF_FILES: beside.copy}
    sources, steps = sources_of(source, side), [view.step, *dequantising(side), reader]
    plan = Plan(report, reader, files, target, source, sources, copied, links=output.links, steps=steps)
    plan = replace(plan, merged=view.merged)
    return execute(of_mcore(plan, side), options, observer)


def _hf_config_file(side: McoreSide, reader: Reader) -> OutFile:
    """The config.json that goes along, as hf2mcore copies one."""
    return config_file(f"{HF_FILES}/{CONFIG}", side.known.reference.config, side.whole, main_dtype(reader.specs))


def _same_layout(side: McoreSide, options: McoreTarget) -> str:
    """The source's own naming: another trainer's is written only when it is asked for.

    Raises:
        UnsupportedError: that trainer does not read the format.
    """
    layout, known = side.layout, ", ".join(_layouts_for(side.whole, options.format))
    if layout.name not in _layouts_for(side.whole, options.format):
        what = f"which is not written as {options.format}"
        if options.format in layout.writes:
            what = f"which has no name for all of this {side.model.model_type}"
        raise UnsupportedError(
            f"the source is in layout {layout.name} ({layout.trainers}), {what}",
            f"Say in whose names to write it: --as-layout {known}.".replace(", ", " or --as-layout "),
        )
    return layout.name


def _layouts_for(config: ModelConfig, file_format: str) -> list[str]:
    """The layouts that a model can be written in, in a format: those with a tower, if it has one."""
    known = known_layouts(config.model_type, file_format)
    return [name for name in known if named(name).tower or config.vision is None]


def _written_in(options: McoreTarget, config: ModelConfig) -> Layout:
    return to_write(options.as_layout, config.model_type, options.format)


def _megatron(report: Report, weights: Weights, target: Path, options: McoreTarget) -> tuple[Offset, McoreFiles]:
    """A reader of the tensors to write, and the files they go to; told in the report."""
    from .to_mcore.output import mcore_files, rows_to_write, topology_of  # with all that writes them

    config = weights.config
    if options.as_iteration is not None:
        check_same_model(target, config)
    layout = _written_in(options, config)
    if config.vision and not layout.tower:
        raise MismatchError(
            f"layout {layout.name} has no vision tower, and this {config.model_type} has one",
            f"Layouts with one: {', '.join(_layouts_for(config, options.format))}.",
        )
    check_divides(config, layout, topology_of(options))
    rows = rows_to_write(config, options)
    reader = mcore_reader(weights, mapped_table(layout, config, rows), options.dtype)
    output = mcore_files(reader.specs, config, weights.hf_config, layout, options)
    describe_computed(report, [*([weights.step] if weights.step else []), reader])
    describe_target(report, layout, options, config, rows)
    describe_output(
        report, target / output.folder, reader, output.files, workers_of(options.threads, options.memory_bytes), reader
    )
    describe_links(report, output.links)
    return reader, output
