"""Both full names of every pair of tensors that a layout maps, for reading and for grep. Generated from the table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from ..errors import MismatchError, shown
from ..models import MODELS, RELEASES, Release
from ..tensors.rules import Copy, table
from ..tensors.spec import Shape
from . import named


class NamePair(NamedTuple):
    """An mcore tensor and a Hugging Face tensor that share numbers.

    Attributes:
        mcore, hf: full names; of mcore the canonical ones: one tensor per layer, experts on a leading axis.
        mcore_shape, hf_shape: of the whole tensors.
        how: "=" where they are the same tensor, "-1" where mcore's is that minus one, "T" where the last two axes are
            exchanged, else how many boxes they share.
    """

    mcore: str
    mcore_shape: Shape
    hf: str
    hf_shape: Shape
    how: str


def name_pairs(layout: str, model: str) -> Iterator[NamePair]:
    """Every pair of names of a layout for an official release.

    Args:
        layout: a key of LAYOUTS.
        model: a release ("Qwen3-VL-2B"), or a model_type ("qwen3_vl") for its smallest release.

    Raises:
        MismatchError: no such layout or model, or the layout is not for it; lists what there is.
    """
    chosen, release = named(layout), _release(model)
    config = release.config
    if config.model_type not in chosen.models:
        raise MismatchError(
            f"layout {layout} is one of {', '.join(chosen.models)}, not of {config.model_type}",
            "Name one of those models.",
        )
    if not chosen.tower:
        config = replace(config, vision=None)
    mapping = table(chosen.rules(config, config.text.vocab))
    left, right, less_one = mapping.left(), mapping.right(), set(chosen.less_one(config))
    shared: dict[tuple[str, str], list[Copy]] = {}
    for copy in mapping.copies:
        shared.setdefault((copy.left.name, copy.right.name), []).append(copy)
    for (mcore, hf), copies in shared.items():
        how = "-1" if mcore in less_one else _how(copies, left[mcore], right[hf])
        yield NamePair(mcore, left[mcore], hf, right[hf], how)


def _how(copies: list[Copy], left: Shape, right: Shape) -> str:
    first = copies[0]
    if len(copies) == 1 and (first.left.lengths, first.right.lengths) == (left, right):
        return "T" if first.transpose else "="
    return f"{len(copies)} box" + "es" * (len(copies) > 1)


def _release(model: str) -> Release:
    found = next((release for release in RELEASES if release.name == model), None)
    if found is None and model in MODELS:
        found = next(iter(MODELS[model].family.releases), None)
    if found is None:
        there = ", ".join([*MODELS, *(release.name for release in RELEASES)])
        what = "has no release of its own" if model in MODELS else "is no model that is known"
        raise MismatchError(f"{shown(model)} {what}", f"There are: {there}.")
    return found
