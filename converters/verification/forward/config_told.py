"""In what two config.json differ, where the same weights make two models."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...config.facts import runtime_facts
from ...errors import CorruptError, shown
from .model import Model

UNTOLD = ("architectures", "dtype", "initializer_range", "torch_dtype", "transformers_version", "use_cache")
"""Fields of config.json that decide nothing of what is computed here."""

LISTED = 5
"""Fields that a sentence names."""


def config_told(first: Model, second: Model) -> str:
    """The fields of config.json that differ, in words."""
    found = [*_differing(_facts(first), _facts(second))]
    if not found:
        found = [*_differing(dict(_flat(first.hf_config)), dict(_flat(second.hf_config)))]
    if not found:
        return "config.json says the same of both"
    more = f", … {len(found) - LISTED} more" * (len(found) > LISTED)
    return f"config.json differs in {', '.join(found[:LISTED])}{more}"


def _facts(model: Model) -> dict[str, Any]:
    """What decides the computation, by its place in config.json."""
    try:
        return {fact.place: fact.value for fact in runtime_facts(model.hf_config, model.config).values()}
    except CorruptError:
        return {}


def _differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[str]:
    for place in {**a, **b}:
        if a.get(place) != b.get(place):
            yield f"{shown(place)} ({shown(a.get(place), 60)} and {shown(b.get(place), 60)})"


def _flat(value: Any, place: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield place, value
        return
    for key, below in value.items():
        if key not in UNTOLD:
            yield from _flat(below, f"{place}.{key}".lstrip("."))
