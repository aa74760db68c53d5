"""The sides of a comparison, opened as what they are and as each other's counterpart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..checkpoint.hf_as_it_is import open_hf_as_it_is
from ..checkpoint.hf_side import HfReading, HfSide, open_hf_side
from ..checkpoint.mcore_side import McoreSide, open_mcore_side
from ..errors import NotComparable, shown_path
from ..formats import safetensors
from ..formats.sums.replicas import no_copy
from ..options import McoreSource, VerifyOptions
from ..tensors.dtypes import main_dtype
from .adapters import apart_of, with_base
from .forward.whose_config import has_own_config
from .side_path import SidePath, refuse_same

Side = HfSide | McoreSide


def open_side(
    named: SidePath,
    options: VerifyOptions,
    number: int,
    beside: Path | None = None,
    *,
    filling: bool = False,
    fp8_as: str = "bfloat16",
    as_it_is: bool = False,
) -> Side:
    """Open a directory as what it is.

    Args:
        named: a Megatron or Hugging Face directory, and which of its iterations.
        options: how it is read.
        number: 0 for A, 1 for B: which of the references is meant.
        beside: a Hugging Face directory to fall back on as reference; of a model that is run only where it has no
            config.json of its own, as a fault in the one that both are run with shows in neither.
        filling: what goes along is asked for both sides, and one that holds it itself does without.
        fp8_as: the dtype that FP8 tensors of a Hugging Face directory are made plain in.
        as_it_is: faults of a Hugging Face directory that a comparison can tell of are no reason to refuse it.
    """
    if safetensors.holds(named.path):
        bare, opened = options.no_output_layer, open_hf_as_it_is if as_it_is else open_hf_side
        return opened(named.path, HfReading(options.experts_form, options.mtp_of_hf, options.carry, bare, fp8_as))
    asked = options.source(number, named.iteration)
    if merged := with_base(named, options, asked):
        return merged
    if asked.reference or not beside or (options.forward and _runs_by_itself(named, asked)):
        return open_mcore_side(named.path, asked, filling=filling)
    side = open_mcore_side(named.path, replace(asked, reference=beside), filling=filling)
    found = side.known.reference._replace(said="the other side")
    return replace(side, known=replace(side.known, reference=found))


def _runs_by_itself(named: SidePath, asked: McoreSource) -> bool:
    """Whether a checkpoint has a config.json of its own to be run with, and nothing is to go along from elsewhere."""
    return not asked.carry and asked.mtp != "carry" and has_own_config(named.path, asked.iteration)


def open_pair(a: SidePath, b: SidePath, options: VerifyOptions, *, as_it_is: bool = False) -> tuple[Side, Side]:
    """Open both; where only one is a Hugging Face directory it serves the other as reference.

    Args:
        a, b: the directories.
        options: how they are read.
        as_it_is: as of `open_side`.

    Raises:
        NotComparable: both are one directory.
        MismatchError: a tied model's output layer is no copy of its embedding, and the other side cannot show why.
    """
    beside = [named.path if safetensors.holds(named.path) else None for named in (b, a)]
    first, second = (
        open_side(named, options, number, beside[number], filling=True, as_it_is=as_it_is)
        for number, named in enumerate((a, b))
    )
    refuse_same(*(apart.directory if (apart := apart_of(side)) else side.directory for side in (first, second)))
    _refuse_stale(first, second)
    _refuse_stale(second, first)
    if options.base is not None and not any(apart_of(side) for side in (first, second)):
        raise NotComparable("--base is of an adapter alone, and neither side is one", "Leave it out.")
    first, second = _as_wide(first, second, a, options, as_it_is), _as_wide(second, first, b, options, as_it_is)
    return first, second


def _refuse_stale(side: Side, other: Side) -> None:
    """A tied model with an output layer of its own is two models; only beside a sound tied one that shows."""
    if isinstance(side, HfSide) and side.stale and (not other.config.text.tied or _stale(other)):
        raise no_copy(f"the output layer in {shown_path(side.directory)}", side.stale)


def _stale(side: Side) -> bool:
    return isinstance(side, HfSide) and bool(side.stale)


def _as_wide(side: Side, other: Side, named: SidePath, options: VerifyOptions, as_it_is: bool) -> Side:
    """An FP8 side as the other one needs it: in float32 where that is FP8, too, or float32."""
    if not isinstance(side, HfSide) or side.step is None or side.adapter:
        return side
    fp8 = isinstance(other, HfSide) and other.step is not None
    if not fp8 and main_dtype(other.reader.specs) == "bfloat16":
        return side
    return open_side(named, options, 0, fp8_as="float32", as_it_is=as_it_is)
