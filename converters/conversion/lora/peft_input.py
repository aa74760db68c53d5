"""hf2mcore --adapter: a PEFT directory as a checkpoint that holds an adapter alone, as Megatron-Bridge saves one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ...adapters.bridge_section import Dim, dim_of, peft_section, ranks_of
from ...adapters.peft.opened import PeftSide, open_peft
from ...adapters.peft.read import adapter_of
from ...adapters.to_megatron import Named, in_megatron_names
from ...checkpoint.describe_model import describe_model
from ...checkpoint.lora.base_config import BaseConfig, base_config
from ...checkpoint.mapping import mapped_table
from ...config.facts import runtime_facts
from ...config.reference import side_files
from ...config.run_config import RUN_CONFIG, run_config_yaml
from ...errors import MismatchError, UnsupportedError, shown, shown_path, sized
from ...formats.dcp.unfold import same_in_all_layers
from ...formats.dcp.write import plan_torch_dist
from ...formats.directory.contents import ADAPTER_CONFIG, CONFIG, HF_FILES
from ...formats.directory.locate import TRACKER
from ...formats.holes import refuse_holes
from ...formats.output_file import OutFile, small_file
from ...layouts import LAYOUTS, to_write
from ...layouts import named as named_layout
from ...layouts.layout import Layout
from ...models import model_of
from ...models.shared.config import ModelConfig
from ...options import Hf2McoreOptions
from ...report import Report, Step
from ...tensors.cast import Cast
from ...tensors.dtypes import main_dtype
from ...tensors.spec import Reader, TensorSpec
from ...workers import workers_of
from ..outcome import quoted
from ..plan import Plan
from ..summary import describe_links, describe_output, describe_side_files
from ..to_mcore.output import ALSO, RELEASE
from ..to_mcore.same_model import check_same_model

BRIDGE = "megatron-bridge"

NO_BASE = "Give the model that it changes: --base with a Hugging Face directory or a hub id."


def adapter_plan(source: Path, target: Path, options: Hf2McoreOptions) -> Plan:
    """The plan of a PEFT directory's conversion.

    Args:
        source: the PEFT directory.
        target: as for hf2mcore.
        options: of the conversion.

    Raises:
        UnsupportedError: Megatron-Bridge has no names for it.
        VlconvError: see errors.py.
    """
    side = open_peft(source)
    if options.strict:
        refuse_holes(side.chunks.holes)
    named = "--base" if options.base else f"base_model_name_or_path of {ADAPTER_CONFIG}"
    base = base_config(options.base or side.stated.base or None, None, source, NO_BASE, named)
    config, layout = base.config, _layout(options, base.config)
    if options.as_iteration is not None:
        check_same_model(target, config)
    adapter = adapter_of(side, config)
    naming = mapped_table(layout, config, config.text.vocab)
    written = in_megatron_names(adapter, layout, config, naming.table)
    dim = dim_of(written, _topk(base.reference.config, config))
    if options.strict and not dim:
        raise UnsupportedError(_ranks(written), "Without --strict it is written all the same.")
    reader: Reader = Cast(written.reader, options.dtype) if options.dtype else written.reader
    report = Report("hf2mcore", "planned")
    _describe(report, side, base, written, layout, dim)
    section = peft_section(written, layout, naming.table, dim)
    folder = RELEASE if options.as_iteration is None else f"iter_{options.as_iteration:07d}"
    files = _files(reader.specs, naming.table.left(), base, layout, options, section, folder)
    links = {ALSO: RELEASE} if folder == RELEASE else {}
    describe_output(report, target / folder, reader, files, workers_of(options.threads, options.memory_bytes), reader)
    describe_links(report, links)
    _describe_result(report, side, target)
    directory = base.reference.directory
    with side.files.noting():
        beside = side_files(directory, model_of(config).traits.tower)
    describe_side_files(report, beside)
    assert directory
    copied = {HF_FILES: [directory / CONFIG, *beside.copy]}
    sources = [source, directory]
    return Plan(report, reader, files, target, source, sources, copied, links=links, seen=side.files)


def _layout(options: Hf2McoreOptions, config: ModelConfig) -> Layout:
    """Whose names are written: Megatron-Bridge alone has checkpoints of such adapters."""
    known = [x.name for x in LAYOUTS.values() if _writes_adapters(x) and config.model_type in x.models]
    usual = to_write(options.as_layout, config.model_type, options.format)
    layout = named_layout(known[0]) if known and options.as_layout is None and usual.name not in known else usual
    if layout.name not in known:
        raise UnsupportedError(
            f"in layout {layout.name} ({layout.trainers}) no adapter is written",
            f"Layouts of Megatron-Bridge: --as-layout {' or --as-layout '.join(known)}." if known else "",
        )
    if config.vision and not layout.tower:
        raise MismatchError(f"layout {layout.name} has no vision tower, and this {config.model_type} has one")
    return layout


def _writes_adapters(layout: Layout) -> bool:
    """Whether Megatron-Bridge reads a layout's adapters, with the run_config.yaml that states alpha."""
    return BRIDGE in layout.adapters and layout.run_config and "torch_dist" in layout.writes


def _topk(hf_config: Mapping[str, Any], config: ModelConfig) -> int:
    """Experts per token; 0: there are none."""
    if not config.text.experts:
        return 0
    return int(runtime_facts(hf_config, config)["experts_per_token"].value)


def _files(
    specs: Mapping[str, TensorSpec],
    whole: Iterable[str],
    base: BaseConfig,
    layout: Layout,
    options: Hf2McoreOptions,
    section: Mapping[str, Any],
    folder: str,
) -> list[OutFile]:
    """The checkpoint, run_config.yaml with the adapter's section, and the tracker file; `whole`: the base's tensors."""
    lists = layout.stacks(base.config)
    if options.per_layer or not same_in_all_layers(specs, whole, lists):
        lists = ()
    files = plan_torch_dist(specs, lists, (), options.as_iteration or 0)
    if model_of(base.config).bridge:
        text = run_config_yaml(base.reference.config, base.config, main_dtype(specs), section)
        files.append(small_file(RUN_CONFIG, text))
    for file in files:
        file.name = f"{folder}/{file.name}"
    word = RELEASE if options.as_iteration is None else str(options.as_iteration)
    return [*files, small_file(TRACKER, word.encode())]


def _ranks(named: Named) -> str:
    ranks = sorted(ranks_of(named, experts=False) | ranks_of(named, experts=True))
    return f"modules have the ranks {shown(ranks)}, and Megatron-Bridge's adapters have one (dim)"


def _describe(report: Report, side: PeftSide, base: BaseConfig, named: Named, layout: Layout, dim: Dim | None) -> None:
    """What was recognised, and how it is written."""
    report.fact(
        "source",
        f"{shown_path(side.directory)}: a PEFT directory, {len(side.chunks.specs)} tensors",
        source=str(side.directory),
        format="peft",
    )
    describe_model(report, base.config)
    report.fact("config_from", base.reference.said, config_from=base.reference.said)
    kinds = sorted({module.kind for module in named.modules})
    how = "taken apart into q, k, v and gate, up (CanonicalLoRA)" if named.canonical else "whole (LoRA)"
    report.fact(
        "written_as",
        f"torch_dist, layout {layout.name} ({layout.trainers}): an adapter alone of {len(named.modules)} modules "
        f"({', '.join(map(shown, kinds))}), {how}, alpha {shown(named.alpha)}",
        target_layout=layout.name,
        canonical=named.canonical,
        zeros=named.zeros,
    )
    if named.zeros:
        report.warnings.append(
            f"{len(named.zeros)} modules have no adapter, such as {shown(named.zeros[0])}, where what lies beside them "
            "has one: theirs are zeros, which change nothing and stay so in training"
        )
    if not dim:
        report.warnings.append(f"{_ranks(named)}: it loads none of this with several")
    if bound := named.bound_to_one:
        report.warnings.append(
            f"Megatron-Bridge takes the rows of linear_out in {len(bound)} modules, such as {shown(bound[0])}, for "
            "others where the tensor parallel size is not 1: load it at 1"
        )


def _describe_result(report: Report, side: PeftSide, target: Path) -> None:
    tensors, nbytes = report.data["tensors"], report.data["bytes"]
    report.result = (
        f"{shown_path(target)}: an adapter of {tensors} tensors, {sized(nbytes)}, from {shown_path(side.directory)}"
    )
    report.steps.append(
        Step("load", f"checkpoint.pretrained_checkpoint=BASE checkpoint.load={quoted(target)}  (Megatron-Bridge)")
    )
