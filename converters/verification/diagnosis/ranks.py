"""Whole tensors that alone differ: the layers of one pipeline rank, or the experts of one expert-parallel rank."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import pairwise

from ...tensors.spec import TensorSpec
from ...tensors.vocabulary import EMBEDDING, OUTPUT_LAYER


def of_one_rank(specs: Mapping[str, TensorSpec], wrong: Collection[str]) -> str:
    """Which layers or experts they are and of which rank, in words; "" where they are not all of one, and no more.

    Args:
        specs: all tensors, by their names on the Hub.
        wrong: those that differ.
    """
    return _experts(specs, set(wrong)) or _layers(specs, set(wrong))


def _experts(specs: Mapping[str, TensorSpec], wrong: set[str]) -> str:
    """Experts that are tensors of their own, the same in every layer."""
    by_layer: dict[str, set[int]] = {}
    every = {number for name in specs if (number := _number(name, "experts")) is not None}
    for name in wrong:
        number = _number(name, "experts")
        if number is None:
            return ""
        by_layer.setdefault(name.partition(".experts.")[0], set()).add(number)
    first, *others = by_layer.values()
    return _said("experts", first, len(every), "expert-parallel") if all(one == first for one in others) else ""


def _layers(specs: Mapping[str, TensorSpec], wrong: set[str]) -> str:
    """Layers of which all matrices differ, with what the first and the last rank have beside them."""
    at = {name: _number(name, "layers") for name in specs if not name.startswith("mtp.")}
    every = {number for number in at.values() if number is not None}
    found = {number for name in wrong if (number := at.get(name)) is not None}
    matrices = {name for name, number in at.items() if number in found and len(specs[name].shape) > 1}
    if not found or not matrices <= wrong:
        return ""
    if any(not _beside(name, found, every) for name in wrong if at.get(name) is None):
        return ""
    return _said("layers", found, len(every), "pipeline")


def _beside(name: str, found: set[int], every: set[int]) -> bool:
    """Whether a tensor in no layer is of a rank that has those layers."""
    if name.endswith(EMBEDDING) or "visual" in name.split("."):
        return min(every) in found
    return max(every) in found and (name.endswith((*OUTPUT_LAYER, ".norm.weight")))


def _said(what: str, found: set[int], total: int, kind: str) -> str:
    """Them, if they are one rank's of several that have as many each."""
    first, span = min(found), len(found)
    if span == total or max(found) - first + 1 != span or total % span or first % span:
        return ""
    which = f"{what} {first} to {max(found)}" if span > 1 else f"{what[:-1]} {first}"
    return f"{which} of {total} alone, the part of {kind} rank {first // span} of {total // span}"


def _number(name: str, word: str) -> int | None:
    """The number that follows a word in a name."""
    for before, part in pairwise(name.split(".")):
        if before == word and part.isdecimal() and len(part) < 6:
            return int(part)
    return None
