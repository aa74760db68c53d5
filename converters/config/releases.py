"""The official release that a model is, or that is nearest to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import log
from typing import Any, NamedTuple

from ..errors import MismatchError, shown
from ..models import MODELS, Model, Release, model_of
from ..tensors.vocabulary import explain
from .made_config import config_facts, release_facts
from .megatron_args import same
from .places import RUNTIME, place_of
from .shape_facts import Values


def fitting(model: Model, values: Values, divisor: int | None) -> Release | None:
    """The official release with exactly these shapes."""
    always = {"tied", "q_width", "kv_width"}
    always |= {"vision.mergers"} if model.traits.tower else set()
    always |= {"key_width"} if model.traits.linear_attention else set()
    for release in model.family.releases:
        facts = release_facts(release)
        facts |= {"q_width": facts["heads"] * facts["head_dim"], "kv_width": facts["groups"] * facts["head_dim"]}
        facts |= {"key_width": release.config.text.key_width}
        facts |= {"vision.mergers": len(release.config.tower.deepstack)} if release.config.vision else {}
        shown_facts = always | {name for name in values if name in facts and name not in RUNTIME}
        alike = all(same(values.get(name), facts[name]) for name in shown_facts)
        if alike and _padded(values, facts["vocab"], divisor):
            return release
    return None


def _padded(values: Values, vocab: int, divisor: int | None) -> bool:
    try:
        explain(values.get("rows", 0), vocab, divisor, {})
    except MismatchError:
        return False
    return True


class Near(NamedTuple):
    """A release, and in what a model differs from it.

    Attributes:
        release: its name.
        differs: place in config.json -> the model's value and the release's; empty: it is that release.
    """

    release: str
    differs: dict[str, tuple[Any, Any]]

    def __str__(self) -> str:
        """As a sentence has it."""
        listed = [f"{place} {shown(ours)} instead of {shown(theirs)}" for place, (ours, theirs) in self.differs.items()]
        return f"nearest: {self.release}, differs in {', '.join(listed)}" if listed else self.release


def nearest(models: Iterable[str], values: Mapping[str, Any]) -> Near | None:
    """The release that a model is, or that most of its integers are those of; None where it has no relative.

    Args:
        models: the model types that it may be.
        values: what is known of it, under the names of facts.py; and `rows` of the embedding where the vocabulary is
            not known.
    """
    found = [(release, _differences(release, values)) for name in models for release in MODELS[name].family.releases]
    if not found:
        return None
    release, differs = min(found, key=lambda pair: _distance(pair[1]))
    traits = model_of(release.config).traits
    return Near(release.name, {place_of(name, traits): both for name, both in differs.items()})


def _differences(release: Release, values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    facts = config_facts(release.config)
    differs = {n: (values[n], facts[n]) for n in facts if n in values and not same(values[n], facts[n])}
    if "vocab" not in values and "rows" in values and not _padded(dict(values), facts["vocab"], None):
        differs["vocab"] = values.get("rows"), facts["vocab"]
    return differs


def _distance(differs: Mapping[str, tuple[Any, Any]]) -> float:
    """How far away a release is: a number twice or half as large counts one, whatever is no number, too."""
    return sum(_apart(ours, theirs) for ours, theirs in differs.values())


def _apart(ours: Any, theirs: Any) -> float:
    numbers = all(type(value) is int and value > 0 for value in (ours, theirs))
    return abs(log(ours / theirs, 2)) if numbers else 1.0
