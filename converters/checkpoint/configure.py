"""The config that a Megatron checkpoint is read with, and on whose word.

It is a reference's, or the one that the checkpoint gives itself.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..config.from_facts import config_from_facts
from ..config.reference import Reference, find_reference
from ..config.shape_facts import visible_traits
from ..layouts.shared.splits import split_of
from ..models import model_with
from ..models.shared.config import ModelConfig
from ..models.shared.fields import Tie
from ..models.shared.model import Model
from ..options import McoreSource
from ..tensors.vocabulary import OUTPUT_LAYER
from .consistency import agreed_facts, agreed_model, agreed_rows, agreed_tie
from .recognise import Recognised


@dataclass(frozen=True)
class Configured:
    """A config that agrees with the checkpoint.

    Attributes:
        reference: where it comes from.
        model, config: what it describes.
        tie: whether the embeddings are tied, and who said so.
        overridden: contradictions that --trust-reference settled.
        unproven: what only the reference says.
        rows: of the embedding, padding included.
        padding: why there are more rows than the vocabulary has; "" without.
    """

    reference: Reference
    model: Model
    config: ModelConfig
    tie: Tie
    overridden: list[str]
    unproven: list[str]
    rows: int
    padding: str


def configure(seen: Recognised, asked: McoreSource) -> Configured:
    """Find the config of a checkpoint, and hold it against all that the checkpoint states and shows but shapes.

    Args:
        seen: the checkpoint.
        asked: reference, revision, divisor and whom to trust.

    Raises:
        ReferenceFault: no reference, and the checkpoint does not suffice; lists what is missing.
        MismatchError: config and checkpoint contradict each other.
    """
    near = seen.opened.directory
    found = find_reference(asked.reference, asked.revision, near) or _own_config(seen, asked)
    model = agreed_model(found, seen.layout)
    tie = agreed_tie(found.config, _output_layer(seen), seen.layout)
    config = model.config(found.config, tie.tied)
    overridden, unproven = agreed_facts(found, config, seen.stated, asked.trust_reference)
    rows, padding = agreed_rows(seen.specs, config, asked.make_vocab_size_divisible_by, seen.stated)
    return Configured(found, model, config, tie, overridden, unproven, rows, padding)


def _output_layer(seen: Recognised) -> bool | None:
    """Whether there is an output layer; None where it may be the last stage's copy of the embedding."""
    there = any(name.endswith(OUTPUT_LAYER) for name in seen.specs)
    return None if there and seen.opened.tied_copy else there


def _own_config(seen: Recognised, asked: McoreSource) -> Reference:
    """The config that the checkpoint itself gives: what it states, its shapes, or the one release that they fit.

    Raises:
        ReferenceFault: it does not suffice; lists what is missing.
    """
    traits = model_with(visible_traits(seen.names, seen.layout.tower)).traits
    shapes = seen.opened.shapes({old: split_of(new, seen.layout, traits) for new, old in seen.names.items()})
    made = config_from_facts(
        {new: shapes[old] for new, old in seen.names.items()},
        [(s.where, s.values) for s in seen.stated],
        tower=seen.layout.tower,
        divisor=asked.make_vocab_size_divisible_by,
        tie_shown=not seen.opened.tied_copy,
    )
    return Reference(None, "the checkpoint itself", made.hf_config, made.sources, made.release)
