"""What is known of a model, complete or not, and the official release that it is or is nearest to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..config.made_config import config_facts
from ..config.places import PATHS, place_of
from ..config.releases import nearest
from ..models import MODELS
from ..models.shared.config import ModelConfig
from .inspection import ModelFound


def of_config(config: ModelConfig) -> ModelFound:
    """A model whose integers are all known."""
    facts = config_facts(config) | {"mtp": config.text.mtp}
    return of_facts([config.model_type], facts)


def of_facts(models: Sequence[str], facts: Mapping[str, Any]) -> ModelFound:
    """A model of which some facts are known, under the names of config/facts.py.

    Args:
        models: the model types that it may be, at least one.
        facts: what is known.
    """
    traits = MODELS[models[0]].traits
    near = nearest(models, facts)
    sizes = {place_of(name, traits): value for name, value in facts.items() if name in PATHS and _says(value)}
    return ModelFound(
        " or ".join(models),
        sizes,
        _words(facts),
        near.release if near else "",
        near.differs if near else {},
    )


def _says(value: object) -> bool:
    """Whether a model has such a thing: no experts and no list of layers is nothing to be said."""
    return type(value) is bool or value not in (0, [], None)


def _words(facts: Mapping[str, Any]) -> str:
    """Sizes in one line, as far as they are known."""
    parts = [
        _with(facts, "{layers} layers of {hidden}"),
        _with(facts, "{heads}/{groups} heads"),
        _with(facts, "{experts} experts of {moe_ffn}"),
        _with(facts, "{mtp} layers of multi-token prediction"),
        _with(facts, "vocabulary {vocab}") or _with(facts, "{rows} rows of vocabulary"),
        {True: "tied embeddings", False: "untied embeddings"}.get(facts.get("tied", ""), ""),
    ]
    text = ", ".join(filter(None, parts))
    vision = {name.removeprefix("vision."): value for name, value in facts.items() if name.startswith("vision.")}
    return "; vision ".join(filter(None, [text, _with(vision, "{depth} blocks of {hidden}")]))


def _with(facts: Mapping[str, Any], pattern: str) -> str:
    """The words, where all that they tell is known and there is such a thing."""
    try:
        told = {name: value for name, value in facts.items() if type(value) is int and value}
        return pattern.format_map(told)
    except KeyError:
        return ""
