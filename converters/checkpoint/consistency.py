"""What must hold between a Megatron checkpoint, what it states of itself, and a config.

All of it is checked before a byte of weights is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

from ..config.facts import geometry_facts, runtime_facts
from ..config.megatron_args import contradictions
from ..config.megatron_args import stated as facts_of
from ..config.reference import Reference
from ..config.shape_facts import visible_traits
from ..errors import MismatchError, shown_path
from ..formats.directory.contents import CONFIG
from ..formats.directory.statements import Stated
from ..layouts.layout import Layout
from ..models import model_for
from ..models.shared.config import ModelConfig
from ..models.shared.fields import Tie, decide_tie
from ..models.shared.model import Model
from ..tensors.mapped import check_names
from ..tensors.spec import Shape, TensorSpec
from ..tensors.vocabulary import EMBEDDING, OUTPUT_LAYER, explain


def agreed_model(reference: Reference, layout: Layout, carry: Sequence[str] = ()) -> Model:
    """The config's model, which must be one that the layout exists for.

    Of a layout without a vision tower it may be one with a tower, where that is to go along.

    Args:
        reference: whose config.json it is.
        layout: the checkpoint's.
        carry: the prefixes of what is to go along.
    """
    model = model_for(reference.config)
    if model.traits.tower and not layout.tower and carry:
        return model
    check_tower(model, layout, carried=False)
    if model.model_type not in layout.models:
        raise MismatchError(
            f"the checkpoint's layout {layout.name} is one of {', '.join(layout.models)}; the reference is a "
            f"{model.model_type}",
            f"The reference is {shown_path(reference.directory or reference.said)}.",
        )
    return model


def check_tower(model: Model, layout: Layout, carried: bool) -> None:
    """A model with a vision tower needs one: the checkpoint's, or one that goes along.

    Raises:
        MismatchError: there is neither.
    """
    if model.traits.tower and not layout.tower and not carried:
        raise MismatchError(
            f"the checkpoint holds the language model of a {model.model_type} alone, without its vision tower",
            f"--carry {model.vision_prefix} takes the tower of the reference's weights along, byte for byte and "
            "untrained; or give the config.json of a model without one.",
        )


FAMILY = {
    "experts": "experts",
    "linear_attention": "layers with linear attention",
    "qkv_bias": "biases of query, key and value",
    "qk_norm": "norms of queries and keys",
}
"""Traits that names show and a whole family has, in words."""


@contextmanager
def naming_config(directory: Path | None, way_out: str) -> Iterator[None]:
    """Put the path of a config.json before an error that says how it contradicts the weights.

    Args:
        directory: that it is in; None: nobody wrote it.
        way_out: what else to do.
    """
    try:
        yield
    except MismatchError as error:
        if directory is None:
            raise
        raise MismatchError(
            f"{shown_path(directory / CONFIG)}: {error.what}", f"{error.hint} {way_out}".rstrip()
        ) from error


def agreed_tie(reference: Reference, output_layer: bool | None, layout: Layout, without: str) -> Tie:
    """Whether the embeddings are tied, by config and tensors together.

    Args:
        reference: whose config.json it is.
        output_layer: whether the tensors have one; None: they do not show it.
        layout: whose they are.
        without: why there may be none at all; "": there may not.
    """
    own = layout.untied_hint if output_layer is False else ""
    with naming_config(reference.directory, "" if own else "Or give the --reference that was trained."):
        try:
            return decide_tie(reference.config, output_layer, without)
        except MismatchError as error:
            raise MismatchError(error.what, own or error.hint) from error


def agreed_facts(
    reference: Reference, config: ModelConfig, stated: list[Stated], trust_reference: bool
) -> tuple[list[str], list[str]]:
    """What the checkpoint states otherwise than the reference, and what it does not state.

    The latter are the fields that nothing in the checkpoint shows or states.

    Raises:
        MismatchError: it states something otherwise, and the reference is not to be trusted more.
    """
    runtime = runtime_facts(reference.config, config)
    facts = runtime | geometry_facts(reference.config, config)
    found = [f"{line} ({s.where})" for s in stated for line in contradictions(facts, s.values)]
    if found and not trust_reference:
        listed = "\n".join(f"  {line}" for line in found[:10])
        what = "the reference config" if reference.directory else f"the config from {reference.said}"
        raise MismatchError(
            f"{what} contradicts the checkpoint:\n{listed}",
            "Give the right --reference; --trust-reference overrides, and is recorded.",
        )
    if not reference.directory:
        return found, list(reference.sources.get(reference.release, ()))
    said = {name for s in stated for name in facts_of(s.values)}
    return found, [fact.place for name, fact in runtime.items() if name not in said and name != "tied"]


def agreed_rows(
    specs: Mapping[str, TensorSpec], config: ModelConfig, divisor: int | None, stated: list[Stated]
) -> tuple[int, str]:
    """Rows of the embedding and why there are so many."""
    shapes: list[Shape] = [
        spec.shape for name, spec in specs.items() if name.endswith((*EMBEDDING, *OUTPUT_LAYER)) and spec.shape
    ]
    rows = {shape[0] for shape in shapes}
    if len(rows) > 1:
        raise MismatchError(
            f"embedding and output layer have different numbers of rows: {' and '.join(map(str, sorted(rows)))}",
            "The checkpoint is damaged.",
        )
    if not rows:
        return config.text.vocab, ""
    merged = {k: v for s in stated for k, v in s.values.items() if k in ("vocab_size", "padded_vocab_size")}
    return (count := rows.pop()), explain(count, config.text.vocab, divisor, merged)


def check_complete(have: Mapping[str, TensorSpec], want: Mapping[str, Shape], layout: Layout, where: str) -> None:
    """check_names, but another family and a wrong number of layers are said as such.

    Of the family names tell only where the layout is theirs.
    """
    shows, expects = (visible_traits(names, layout.tower) for names in (have, want))
    for trait, words in FAMILY.items() if layout.fits(have) else ():
        if shows[trait] != expects[trait]:
            raise MismatchError(
                f"{where}: the reference has {words}, the checkpoint has none"
                if expects[trait]
                else f"{where}: the checkpoint has {words}, the reference has none",
                "The reference config belongs to another model.",
            )
    for tower, what, field in (
        (False, "decoder layers", "text_config.num_hidden_layers"),
        (True, "vision blocks", "vision_config.depth"),
    ):
        found, expected = (_layers(n for n in names if _in_tower(n, layout) == tower) for names in (have, want))
        if found and found != expected:
            raise MismatchError(
                f"{where}: has {found} {what} where the reference's {field} is {expected}",
                "The reference config belongs to another model or size.",
            )
    check_names(have, want, where)


def _in_tower(name: str, layout: Layout) -> bool:
    return bool(layout.tower) and name.startswith(layout.tower)


def _layers(names: Iterable[str]) -> int:
    """How many layers the names number."""
    parts = (name.split(".") for name in names)
    return len(
        {part for name in parts for before, part in pairwise(name) if before in ("layers", "blocks") and part.isdigit()}
    )
