"""A Megatron checkpoint as a Hugging Face directory: how that is planned."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...checkpoint.describe import describe_computed, describe_mcore, describe_reference_dtypes
from ...checkpoint.mcore_side import McoreSide
from ...config.hf_config import config_to_write
from ...options import Mcore2HfOptions
from ...report import Report
from ...tensors.dtypes import main_dtype
from ...tensors.spec import TensorSpec
from ..mcore_source import dequantising, of_mcore, refuse_warned, sources_of
from ..outcome import describe_hf_steps, describe_result, origin_of
from ..plan import Plan
from ..readers import hf_dtypes, hf_reader, merged_dtypes
from .output import HfWeights, describe_hf_output, form_of, hf_output


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
    form = form_of(options, side.whole, side.files, head_packed=options.experts == "hub" and side.head_packed)
    dtypes = hf_dtypes(side, options.dtype, form.fp8)
    view = side.to_hf(dtypes=dtypes, merged=merged_dtypes(side.adapter, options.dtype))
    weights = HfWeights(
        reader=hf_reader(side, view.reader, form.dialect, options.dtype),
        counted=side.with_carried(view.reader),
        config=side.whole,
        hf_config=side.known.reference.config,
        beside=side.known.reference.directory,
        files=side.files,
        unlisted=_unlisted(side),
        steps=[view.step, *dequantising(side)],
        merged=view.merged,
    )
    output = hf_output(weights, form, options)
    report = Report("mcore2hf", "planned")
    describe_mcore(report, side, options.dtype)
    describe_computed(report, [view.step])
    if not form.fp8 and not options.dtype:
        describe_reference_dtypes(report, side, dtypes)
    describe_hf_output(report, weights, form, output, target, options)
    origin = side.apart.directory if side.apart else side.directory
    describe_result(report, target, side.whole, origin_of(origin))
    describe_hf_steps(report, side, target, options, options.dtype)
    sources = [*sources_of(source, side), *([form.fp8.directory] if form.fp8 else [])]
    plan = Plan(report, output.reader, output.files, target, source, sources, {"": output.beside.copy})
    return of_mcore(replace(plan, steps=output.steps, merged=view.merged), side)


def hf_config_of(side: McoreSide, plain: Mapping[str, TensorSpec]) -> dict[str, Any]:
    """The config.json of a checkpoint's weights, of which those are no FP8."""
    unlisted = _unlisted(side)
    dtype = main_dtype({name: spec for name, spec in plain.items() if name not in unlisted})
    return config_to_write(side.known.reference.config, side.model, tied=side.whole.text.tied, dtype=dtype)


def _unlisted(side: McoreSide) -> Collection[str]:
    """Tensors that go along, and that no model here lists."""
    carried = side.known.carried
    return carried.others.specs.keys() if carried else ()
