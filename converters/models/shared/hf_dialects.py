"""Other spellings of a model on the Hugging Face side, as copies between a dialect (left) and the Hub's names (right).

Letters: E experts, H hidden, I expert FFN width. The Hub holds experts as gate_up_proj [E, H, 2I] (gate first) and
down_proj [E, I, H].
transformers 5 saves them under the same names as [E, 2I, H] and [E, H, I]; some trainers save each expert's three
matrices by themselves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from ...errors import MismatchError, shown
from ...tensors.rules import Copy, rename, transposed
from ...tensors.spec import Box, Shape
from .. import MODELS
from .config import ModelConfig, TextConfig
from .traits import Prefixes

ExpertsForm = Literal["hub", "transformers-5", "per-expert"]
NamesForm = Literal["old", "new"]


class Dialect(NamedTuple):
    """How a Hugging Face directory spells its tensors."""

    experts: ExpertsForm = "hub"  # of a MoE model
    hf_names: NamesForm = "old"  # of a model with later prefixes


def read_dialect(shapes: Mapping[str, Shape], config: ModelConfig, experts_form: ExpertsForm | None = None) -> Dialect:
    """The dialect of a directory, from its tensors' names and shapes.

    Args:
        shapes: every tensor in it.
        config: the model, which may still turn out not to fit.
        experts_form: settles the experts' form where their shapes cannot.

    Raises:
        MismatchError: the experts are square, so that their orientation cannot be seen, or they are oriented two ways
            at once.
    """
    later = MODELS[config.model_type].traits.later_prefixes
    new = later is not None and any(name.startswith(later) for name in shapes)
    return Dialect(_experts_form(shapes, config, experts_form), "new" if new else "old")


def dialect_copies(config: ModelConfig, dialect: Dialect) -> list[Copy]:
    """Every tensor of a dialect (left) in the Hub's names and orientation (right)."""
    model = MODELS[config.model_type]
    later = model.traits.later_prefixes if dialect.hf_names == "new" else None
    copies: list[Copy] = []
    for name, shape in model.hf_tensors(config).items():
        stem, _, kind = name.rpartition(".mlp.experts.")
        if stem and dialect.experts == "transformers-5":
            copies += transposed(name, name, (shape[0], shape[2], shape[1]))
        elif stem and dialect.experts == "per-expert":
            copies += _per_expert(config.text, stem, kind)
        else:
            copies += rename(_respelled(name, model.prefixes, later) if later else name, name, shape)
    return copies


def _respelled(name: str, now: Prefixes, later: Prefixes) -> str:
    """A name with the later prefixes; `lm_head.weight` stays."""
    for ours, theirs in ((now.vision, later.vision), (now.text, later.text)):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _per_expert(c: TextConfig, stem: str, kind: str) -> Iterator[Copy]:
    """One expert's Linear weight is the transpose of a part of its slice.

    Gate [I, H] of columns 0..I, up [I, H] of columns I..2I, down [H, I].
    """
    parts = [("gate_proj", 0), ("up_proj", c.moe_ffn)] if kind == "gate_up_proj" else [("down_proj", 0)]
    rows, columns = (c.moe_ffn, c.hidden) if kind == "gate_up_proj" else (c.hidden, c.moe_ffn)
    for expert in range(c.experts):
        for part, start in parts:
            left = Box(f"{stem}.mlp.experts.{expert}.{part}.weight", (0, 0), (rows, columns))
            yield Copy(left, Box(f"{stem}.mlp.experts.{kind}", (expert, 0, start), (1, columns, rows)), transpose=True)


def _experts_form(shapes: Mapping[str, Shape], config: ModelConfig, asked: ExpertsForm | None) -> ExpertsForm:
    if not config.text.experts or asked is not None:
        return asked or "hub"
    if any(".mlp.experts.0." in name for name in shapes):
        return "per-expert"
    seen = {name: _orientation(name, shape, config.text) for name, shape in shapes.items()}
    forms = {form for form in seen.values() if form}
    if forms == {"hub", "transformers-5"}:
        listed = ", ".join(
            next(f"{shown(name)} {list(shapes[name])} is {form}" for name, f in seen.items() if f == form)
            for form in sorted(forms)
        )
        raise MismatchError(
            f"the experts are oriented two ways at once: {listed}", "The directory mixes files of different origin."
        )
    square = next(
        (
            name
            for name, shape in shapes.items()
            if ".mlp.experts." in name and len(shape) == 3 and shape[1] == shape[2]
        ),
        None,
    )
    if not forms and square is not None:
        raise MismatchError(
            f"{shown(square)} {list(shapes[square])} is square, and nothing else shows which way the experts "
            "are oriented",
            "Say it: --experts-form hub for [E, in, out], as on the Hub, or --experts-form transformers-5 for [E, "
            "out, in], as transformers 5 saves it.",
        )
    return "transformers-5" if "transformers-5" in forms else "hub"


def _orientation(name: str, shape: Shape, c: TextConfig) -> ExpertsForm | None:
    """What one tensor's shape says: None if it is no expert tensor, square, or of a shape that fits neither form."""
    if name.endswith(".mlp.experts.gate_up_proj"):
        hub = (c.experts, c.hidden, 2 * c.moe_ffn)
    elif name.endswith(".mlp.experts.down_proj"):
        hub = (c.experts, c.moe_ffn, c.hidden)
    else:
        return None
    swapped = (hub[0], hub[2], hub[1])
    if shape not in (hub, swapped) or hub == swapped:
        return None
    return "hub" if shape == hub else "transformers-5"
