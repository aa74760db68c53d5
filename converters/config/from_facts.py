"""A config.json for a checkpoint without a reference.

From what it states of itself and its shapes, or from the one official release that its shapes fit. Nothing is guessed:
a fact that neither gives is named, and the conversion refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from ..errors import MismatchError, ReferenceFault, shown
from ..formats.json_file import parse_json
from ..models import Model, Release, model_with
from ..models.shared.config import ModelConfig, TextConfig, VisionConfig
from ..models.shared.traits import Traits
from ..tensors.spec import Shape
from .facts import GEOMETRY, VISION, Facts, needed
from .kinds import possible, wanted
from .made_config import made_config, release_facts
from .megatron_args import TRAINERS_OWN, same, stated
from .places import PATHS, place_of
from .reference import PLACES
from .releases import fitting
from .shape_facts import Values, shape_facts, visible_traits

SHAPES = "the tensors' shapes"


class MadeConfig(NamedTuple):
    """A config.json without a reference, and who said each of its facts."""

    hf_config: dict[str, Any]
    sources: dict[str, list[str]]  # source -> fields of config.json
    release: str = ""  # the source that is an official release, where one was needed


class _Known:
    """Facts with their sources; the first source of a fact keeps it, and later ones must agree."""

    def __init__(self, traits: Traits) -> None:
        self.traits = traits
        self.values: Values = {}
        self.sources: dict[str, str] = {}

    def add(self, facts: Mapping[str, Any], source: Callable[[str], str]) -> None:
        """Take facts in; MismatchError when one is known otherwise."""
        for name, value in facts.items():
            if name not in self.values:
                self.values[name], self.sources[name] = value, source(name)
            elif not same(self.values[name], value):
                raise MismatchError(
                    f"{shown(place_of(name, self.traits))} is {shown(self.values[name])} by {self.sources[name]}, but "
                    f"{shown(value)} by {source(name)}",
                    "Pass --reference with the Hugging Face model that was trained.",
                )


def config_from_facts(
    shapes: Mapping[str, Shape],
    statements: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    tower: str,
    dtype: str = "bfloat16",
    divisor: int | None = None,
    tie_shown: bool = True,
) -> MadeConfig:
    """A complete config.json, or an error that lists what is not known.

    Args:
        shapes: of a Megatron checkpoint: names without wrappers' prefixes, one tensor per layer, experts on a leading
            axis.
        statements: (where, values) of what the checkpoint states of itself: args, run_config, args.json,
            mca_config.json.
        tower: what the names of the vision tower begin with; "" where there is none.
        dtype: of the weights.
        divisor: --make-vocab-size-divisible-by, to explain padding.
        tie_shown: whether an output layer means that it is not tied; else it may be a copy of the embedding.

    Raises:
        UnsupportedError: the tensors are those of no model that is converted.
        ReferenceFault: facts are missing; they are listed.
        MismatchError: two sources contradict each other, or one states what cannot be.
    """
    statements = list(statements)
    whole = _embedded(statements)
    if whole is not None:
        return whole
    found = gather(shapes, statements, tower=tower, divisor=divisor, tie_shown=tie_shown)
    model, known, release = found.model, found.known, found.release
    _refuse(found.missing)
    fits = _fits(release) if release else ""
    sources = _by_source(known, model)
    hf_config = made_config(_config(model, known.values), known.values, dtype, release)
    return MadeConfig(_with_ids(hf_config, found.ids, model), sources, fits if fits in sources else "")


class Gathered(NamedTuple):
    """All that is known of a model without a config.json, complete or not.

    Attributes:
        model: what it is.
        known: the facts, and who says each.
        release: the official release whose facts are among them, as all that is known fits it.
        ids: token ids that are stated.
    """

    model: Model
    known: _Known
    release: Release | None
    ids: dict[str, int]

    @property
    def missing(self) -> list[str]:
        """The fields of config.json that nobody says."""
        names = needed(self.model, dense_layers=bool(self.known.values.get("dense_layers")))
        return [place_of(name, self.model.traits) for name in names if name not in self.known.values]


def gather(
    shapes: Mapping[str, Shape],
    statements: Iterable[tuple[str, Mapping[str, Any]]],
    *,
    tower: str,
    divisor: int | None = None,
    tie_shown: bool = True,
) -> Gathered:
    """What shapes show, a checkpoint states, and the one release that both fit says. Arguments as config_from_facts.

    Raises:
        UnsupportedError, ReferenceFault: the tensors are those of no model that is converted, or of several.
        MismatchError: two sources contradict each other, or one states what cannot be.
    """
    model = model_with(visible_traits(shapes, tower))
    known = _Known(model.traits)
    seen = shape_facts(shapes, tower, gated=model.traits.gated_attention)
    if not tie_shown and not seen.get("tied"):
        seen.pop("tied", None)
    known.add(seen, lambda _: SHAPES)
    ids: dict[str, int] = {}
    for where, values in statements:
        said = _relevant(stated(values), model)
        _check_kinds(said, where)
        for name in TRAINERS_OWN:
            if name in seen:
                said.pop(name, None)
        known.add({name: fact.value for name, fact in said.items()}, _places(said, where))
        ids |= {name: values[name] for name in _token_ids(model) if type(values.get(name)) is int}
    _derive(known)
    release = fitting(model, known.values, divisor)
    if release:
        fits = _fits(release)
        known.add(release_facts(release), lambda _: fits)
    _derive(known)
    return Gathered(model, known, release, ids)


def _fits(release: Release) -> str:
    """What such a release is called as a source."""
    return f"{release.name}, the one release that fits"


def _check_kinds(said: Facts, where: str) -> None:
    for name, fact in said.items():
        if not possible(name, fact.value):
            raise MismatchError(
                f"{fact.place} in {where} is {shown(fact.value)}, not {wanted(name)}",
                "Pass --reference with the Hugging Face model that was trained, and --trust-reference.",
            )


def _places(said: Facts, where: str) -> Callable[[str], str]:
    """Fact -> where it is stated."""
    return lambda name: f"{said[name].place} in {where}"


def _embedded(statements: Iterable[tuple[str, Mapping[str, Any]]]) -> MadeConfig | None:
    """ROLL keeps the whole config.json as text inside its own."""
    for where, values in statements:
        text = values.get("hf_config_json")
        if isinstance(text, str) and text:
            return MadeConfig(
                parse_json(text.encode("utf-8", "surrogatepass"), f"hf_config_json in {where}"),
                {f"hf_config_json in {where}": ["all of it"]},
            )
    return None


def _relevant(said: Facts, model: Model) -> Facts:
    """What is stated, without what this model has no use for.

    The FFN width of dense layers is dropped where there are none: trainers then put the experts' there.
    """
    useful = needed(model, dense_layers=bool(said["dense_layers"].value) if "dense_layers" in said else False)
    useful += ["mtp"] * model.traits.mtp + ["mrope_section"] * bool(model.family.mrope_section)
    return {name: fact for name, fact in said.items() if name in useful}


def _derive(known: _Known) -> None:
    """Heads from widths and the head dimension, or the head dimension from widths and heads."""
    values = known.values
    q_width, kv_width, head_dim, heads = (values.get(name) for name in ("q_width", "kv_width", "head_dim", "heads"))
    if q_width and not head_dim and heads and q_width % heads == 0:
        head_dim = q_width // heads
    if q_width and kv_width and head_dim and not (q_width % head_dim or kv_width % head_dim):
        derived = {"head_dim": head_dim, "heads": q_width // head_dim, "groups": kv_width // head_dim}
        known.add(derived, lambda _: SHAPES)
    if (width := values.get("key_width")) and (key_heads := values.get("key_heads")) and width % key_heads == 0:
        known.add({"key_dim": width // key_heads}, lambda _: SHAPES)
    if width and (key_dim := values.get("key_dim")) and width % key_dim == 0:
        known.add({"key_heads": width // key_dim}, lambda _: SHAPES)
    if values.get("vision.deepstack") is None and values.get("vision.mergers") == 0:
        known.add({"vision.deepstack": []}, lambda _: SHAPES)


def _refuse(missing: list[str]) -> None:
    if missing:
        raise ReferenceFault(
            f"there is no Hugging Face reference beside the checkpoint ({', '.join(PLACES)}), and it does not say "
            f"itself: {', '.join(missing)}",
            "Pass --reference with the directory or the hub id of the Hugging Face model that was trained: it gives "
            "them.",
        )


def _config(model: Model, values: Values) -> ModelConfig:
    text = {name: values.get(name, 0) for name in (*GEOMETRY, "tied")}
    for name in ("dense_layers", "linear_layers"):
        text[name] = frozenset(values.get(name, ()))
    if not model.traits.tower:
        return ModelConfig(model.model_type, TextConfig(**text))
    vision = {name: values.get(f"vision.{name}", 0) for name in VISION}
    vision["deepstack"] = tuple(values.get("vision.deepstack", ()))
    return ModelConfig(model.model_type, TextConfig(**text), VisionConfig(**vision))


def _token_ids(model: Model) -> list[str]:
    return [*model.family.token_ids, *model.family.text_ids]


def _with_ids(hf_config: dict[str, Any], ids: Mapping[str, int], model: Model) -> dict[str, Any]:
    """Token ids as stated; else they are those of all releases, which a smaller vocabulary cannot have."""
    text = hf_config.get("text_config", hf_config)
    hf_config |= {name: value for name, value in ids.items() if name in model.family.token_ids}
    text |= {name: value for name, value in ids.items() if name in model.family.text_ids}
    held = {name: hf_config[name] for name in model.family.token_ids}
    held |= {name: text[name] for name in model.family.text_ids}
    _refuse([name for name, token in held.items() if not 0 <= token < text["vocab_size"]])
    return hf_config


def _by_source(known: _Known, model: Model) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, source in known.sources.items():
        if name in PATHS and known.values[name] not in (0, []):  # of what the model has not, nobody says anything
            found.setdefault(source, []).append(place_of(name, model.traits))
    same_for_all = ["token ids unless stated", "activations", "max_position_embeddings"]
    found[f"all releases of {model.model_type}"] = same_for_all
    return found
