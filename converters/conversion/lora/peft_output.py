"""mcore2hf --adapter: the adapter of a Megatron checkpoint as a PEFT directory. Nothing is computed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ...adapters.adapter import Adapter
from ...adapters.equal import all_zero
from ...adapters.names import Found
from ...adapters.peft.written import MERGE, Written, no_module_for, peft_files, to_write
from ...checkpoint.describe_model import describe_model
from ...checkpoint.lora.adapter_side import open_adapter_files, open_adapter_side
from ...checkpoint.lora.base_config import BaseConfig, base_config
from ...checkpoint.lora.describe_adapter import describe_adapter
from ...checkpoint.mcore_side import open_mcore_side
from ...config.reference import Reference
from ...errors import MismatchError, UnsupportedError, shown, shown_path, sized
from ...formats import FORMATS, is_mcore, safetensors
from ...formats.chunks import ChunkReader
from ...formats.directory.locate import iteration_of, one_or_more
from ...formats.holes import refuse_holes
from ...formats.opened import Opened, Summed
from ...formats.seen_files import SeenFiles
from ...layouts.layout import Layout
from ...models.shared.config import ModelConfig
from ...options import Mcore2HfOptions
from ...report import Report, Step
from ...tensors.cast import Cast
from ...tensors.spec import Reader
from ...workers import workers_of
from ..mcore_source import refuse_disagreeing
from ..outcome import as_read, origin_of, quoted
from ..plan import Plan
from ..summary import describe_output


class Source(NamedTuple):
    """A checkpoint with an adapter, with its base or without.

    Attributes:
        opened: its files.
        found: the adapter by its names.
        adapter: and read.
        layout: whose names.
        config: the model that it changes.
        reference: where the config comes from.
        chunks: the reader below.
        files: all files that were opened.
    """

    opened: Opened
    found: Found
    adapter: Adapter
    layout: Layout
    config: ModelConfig
    reference: Reference
    chunks: ChunkReader
    files: SeenFiles


def peft_plan(source: Path, target: Path, options: Mcore2HfOptions) -> Plan:
    """The plan of an adapter's export.

    Args:
        source: a checkpoint that holds an adapter, with its base or without.
        target: the directory to write.
        options: of the conversion.

    Raises:
        MismatchError: it holds no adapter, or --strict refuses it.
        UnsupportedError: peft has no form for it.
        VlconvError: see errors.py.
    """
    side = _open(source, options)
    if options.strict:
        refuse_holes(side.chunks.holes)
        refuse_disagreeing(side.opened)
    adapter, empty = _without_empty(side.adapter)
    packed = options.adapter_experts != "per-expert"
    if not adapter.pairs:
        raise UnsupportedError(
            f"{shown_path(side.opened.directory)}: every A and B of its adapter is zero, so it changes nothing",
            "The model that it was trained on is the model with it.",
        )
    written = to_write(adapter, side.config, packed=packed, base=_base_name(options, side.reference))
    if options.strict and written.left:
        raise UnsupportedError(no_module_for(written.left), MERGE)
    reader: Reader = Cast(written.reader, options.dtype) if options.dtype else written.reader
    files = peft_files(reader, written.config)
    report = Report("mcore2hf", "planned")
    _describe(report, side, written, empty)
    describe_output(report, target, reader, files, workers_of(options.threads, options.memory_bytes), reader)
    _describe_result(report, side, target)
    if options.base and not options.dtype and not written.left:
        report.steps.append(_verify(side, target, options))
    directory = side.reference.directory
    sources = [source, *([directory] if directory else [])]
    checkpoints = [Summed(side.chunks, side.opened.integrity)]
    return Plan(report, reader, files, target, source, sources, checkpoints=checkpoints, seen=side.files)


def _open(source: Path, options: Mcore2HfOptions) -> Source:
    """The checkpoint, whatever it holds beside the adapter."""
    alone = open_adapter_files(source, options)
    if alone is None:
        side = open_mcore_side(source, options)
        if side.adapter is None or side.seen.adapter is None:
            raise MismatchError(f"{shown_path(source)} holds no adapter", "Leave --adapter out.")
        reference = side.known.reference
        rest = (side.layout, side.config, reference, side.chunks, side.files)
        return Source(side.opened, side.seen.adapter, side.adapter, *rest)
    base = _base(alone.directory, options)
    read = open_adapter_side(alone, base.config, options.layout)
    rest_alone = (read.layout, base.config, base.reference, read.chunks, alone.files)
    return Source(alone.opened, alone.found, read.adapter, *rest_alone)


def _base(near: Path, options: Mcore2HfOptions) -> BaseConfig:
    """The config of the model that an adapter changes which lies alone."""
    hint = "Give that model: --base with a Hugging Face directory, a hub id or a Megatron checkpoint."
    if options.base is not None and one_or_more(is_mcore)(Path(options.base)):
        base = open_mcore_side(Path(options.base), replace(options, iteration=None, layout=None, lora_alpha=None))
        return BaseConfig(base.whole, base.known.reference)
    named = "--base" if options.base else "--reference"
    return base_config(options.base or options.reference, options.revision, near, hint, named)


def _without_empty(adapter: Adapter) -> tuple[Adapter, list[str]]:
    """The adapter without pairs whose A and B are zero, which change nothing and never will; and their modules.

    hf2mcore writes such ones, where Megatron-Bridge wants an adapter and there is none.
    """
    empty = {pair for pair in adapter.pairs if all(all_zero(adapter.reader, half) for half in (pair.a, pair.b))}
    kept = tuple(pair for pair in adapter.pairs if pair not in empty)
    return replace(adapter, pairs=kept), [pair.module for pair in adapter.pairs if pair in empty]


def _base_name(options: Mcore2HfOptions, reference: Reference) -> str:
    """What peft is told of the base: the repository, or the directory that the user names, if it holds weights."""
    if reference.hub_id:
        return reference.hub_id
    named = reference.directory if options.base or options.reference else None
    return str(named.absolute()) if named and safetensors.holds(named) else ""


def _describe(report: Report, side: Source, written: Written, empty: Sequence[str]) -> None:
    """What was recognised, and what peft is told of it."""
    directory, config = side.opened.directory, written.config
    report.fact(
        "source",
        f"{shown_path(directory)}: {FORMATS[side.opened.format].title}",
        source=str(directory),
        format=side.opened.format,
        form=side.opened.form,
        iteration=iteration_of(directory),
    )
    report.fact("layout", f"{side.layout.name} ({side.layout.trainers})", layout=side.layout.name)
    describe_model(report, side.config)
    describe_adapter(report, side.adapter, side.found.kind, f"the model's config is from {side.reference.said}")
    patterns = len(config["rank_pattern"]) + len(config["alpha_pattern"])
    parameters = config["target_parameters"] or []
    report.fact(
        "peft",
        f"{len(config['target_modules'])} modules and {len(parameters)} parameters, r {config['r']}, lora_alpha "
        f"{config['lora_alpha']}" + f", {patterns} of them with a pattern of their own" * bool(patterns),
        peft={name: config[name] for name in ("r", "lora_alpha", "rank_pattern", "alpha_pattern")},
        experts_form="transformers-5" if parameters else None,
    )
    report.data["without_change"] = list(empty)
    if written.left:
        report.warnings.append(f"{no_module_for(written.left)}: they are left out")
    if not written.one_scale:
        report.warnings.append(
            "modules are scaled differently (rank_pattern, alpha_pattern): peft takes that into account; a program "
            "that takes lora_alpha / r for all of them does not"
        )
    report.warnings += side.opened.warnings


def _describe_result(report: Report, side: Source, target: Path) -> None:
    """The result in one line, and what to do with it."""
    tensors, nbytes = report.data["tensors"], report.data["bytes"]
    report.result = (
        f"{shown_path(target)}: a PEFT adapter of {tensors} tensors, {sized(nbytes)}, from "
        f"{origin_of(side.opened.directory)}"
    )
    report.steps.append(Step("load", f"PeftModel.from_pretrained(model, {shown_path(target)!r})"))
    report.steps.append(Step("serve", f"vllm serve BASE --enable-lora --lora-modules NAME={quoted(target)}"))


def _verify(side: Source, target: Path, options: Mcore2HfOptions) -> Step:
    """Both are merged into the base and compared."""
    base = shlex.quote(shown(str(options.base)))
    words = [quoted(side.opened.directory), quoted(target), "--base", base, *as_read(options)]
    return Step("verify", " ".join(["vlconv verify", *words]))
