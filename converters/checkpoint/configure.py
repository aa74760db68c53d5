"""The config that a Megatron checkpoint is read with, and on whose word.

It is a reference's, or the one that the checkpoint gives itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..config.from_facts import config_from_facts
from ..config.output_layer import why_without
from ..config.reference import Reference, find_reference
from ..config.shape_facts import visible_traits
from ..errors import ReferenceFault
from ..layouts.shared.splits import split_of
from ..models import MODELS, model_with
from ..models.shared.config import ModelConfig
from ..models.shared.fields import Tie
from ..models.shared.model import Model
from ..options import McoreSource
from ..tensors.spec import Shape
from ..tensors.vocabulary import OUTPUT_LAYER
from .absent.carried import Carried, carry
from .absent.mtp import Head, layers_of, settle_head, with_layers
from .consistency import agreed_facts, agreed_model, agreed_rows, agreed_tie, check_tower
from .recognise import Recognised


@dataclass(frozen=True)
class Configured:
    """A config that agrees with the checkpoint.

    Attributes:
        reference: where it comes from; its config.json is that of the model to write.
        model: what it describes.
        whole: the model to write: what the checkpoint holds, and what goes along.
        config: what is read of the checkpoint alone.
        head: what becomes of a multi-token-prediction head.
        carried: what goes along; None: nothing.
        tie: whether the embeddings are tied, and who said so.
        overridden: contradictions that --trust-reference settled.
        unproven: what only the reference says.
        rows: of the embedding, padding included.
        padding: why there are more rows than the vocabulary has; "" without.
    """

    reference: Reference
    model: Model
    whole: ModelConfig
    config: ModelConfig
    head: Head
    carried: Carried | None
    tie: Tie
    overridden: list[str]
    unproven: list[str]
    rows: int
    padding: str


def configure(seen: Recognised, asked: McoreSource, *, filling: bool = False) -> Configured:
    """Find the config of a checkpoint, and hold it against all that the checkpoint states and shows but shapes.

    Args:
        seen: the checkpoint.
        asked: reference, revision, divisor, whom to trust and what goes along.
        filling: of what is to go along the checkpoint may hold some itself.

    Raises:
        ReferenceFault: no reference, and the checkpoint does not suffice; lists what is missing.
        MismatchError: config and checkpoint contradict each other.
    """
    near = seen.opened.directory
    found = find_reference(asked.reference, asked.revision, near) or _own_config(seen, asked)
    asked = lacking(asked, seen) if filling else asked
    model = agreed_model(found, seen.layout, asked.carry)
    without = why_without(found.directory, asked.no_output_layer)
    tie = agreed_tie(found, _output_layer(seen), seen.layout, without)
    said = model.config_of(found.config, tie)
    overridden, unproven = agreed_facts(found, said, seen.stated, asked.trust_reference)
    rows, padding = agreed_rows(seen.specs, said, asked.make_vocab_size_divisible_by, seen.stated)
    whose = "the reference's config.json" if found.directory else f"the config.json made from {found.said}"
    head = settle_head(said, found.config, seen.names, asked.mtp, where="the checkpoint", whose=whose)
    tower = model.traits.tower and bool(seen.layout.tower)
    carried = _carried(found, head, asked, tower)
    check_tower(model, seen.layout, carried is not None and carried.tower)
    return Configured(
        reference=found._replace(config=head.hf_config),
        model=model,
        whole=carried.config if carried else head.config,
        config=with_layers(head.config if tower else replace(head.config, vision=None), head.layers),
        head=head,
        carried=carried,
        tie=tie,
        overridden=overridden,
        unproven=unproven,
        rows=rows,
        padding=padding,
    )


def lacking(asked: McoreSource, seen: Recognised) -> McoreSource:
    """What is asked, without what the checkpoint holds itself."""
    towers = tuple(model.vision_prefix for model in MODELS.values() if model.traits.tower) if seen.layout.tower else ()
    carry = tuple(prefix for prefix in asked.carry if not prefix.startswith(towers))
    has_head = asked.mtp == "carry" and layers_of(seen.names) > 0
    return replace(asked, carry=carry, mtp=None if has_head else asked.mtp)


def _carried(found: Reference, head: Head, asked: McoreSource, tower: bool) -> Carried | None:
    if not head.carried and not asked.carry:
        return None
    return carry(found, head.config, asked.carry, head=head.carried, tower=tower)


def _output_layer(seen: Recognised) -> bool | None:
    """Whether there is an output layer; None where it may be the last stage's copy of the embedding."""
    there = any(name.endswith(OUTPUT_LAYER) for name in seen.specs)
    return None if there and seen.opened.tied_copy else there


def _own_config(seen: Recognised, asked: McoreSource) -> Reference:
    """The config that the checkpoint itself gives: what it states, its shapes, or the one release that they fit.

    Raises:
        ReferenceFault: it does not suffice; lists what is missing.
    """
    layout = seen.layout
    if layout.is_half:
        raise ReferenceFault(
            "the checkpoint holds the language model of a model with a vision tower alone, by layout "
            f"{layout.name}, and there is no Hugging Face reference beside it",
            "Pass --reference with the Hugging Face model that was trained; --carry takes its vision tower along.",
        )
    made = config_from_facts(
        whole_shapes(seen),
        [(s.where, s.values) for s in seen.stated],
        tower=layout.tower,
        divisor=asked.make_vocab_size_divisible_by,
        tie_shown=not seen.opened.tied_copy,
    )
    return Reference(None, "the checkpoint itself", made.hf_config, made.sources, made.release)


def whole_shapes(seen: Recognised) -> dict[str, Shape]:
    """Shapes of whole tensors by their names without prefixes; no tensor is read.

    Raises:
        UnsupportedError, ReferenceFault: the names are those of no model, or of several.
    """
    layout = seen.layout
    traits = model_with(visible_traits(seen.names, layout.tower)).traits
    shapes = seen.opened.shapes({old: split_of(new, layout, traits) for new, old in seen.names.items()})
    return {new: shapes[old] for new, old in seen.names.items()}
