"""Other spellings of a model on the Hugging Face side, as copies between a dialect (left) and the Hub's names (right).

How the Hub holds experts is the model's own (traits.experts_on_hub). transformers 5 saves them packed, under the names
of the Hub's two tensors; some trainers save each expert's three matrices by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from ...errors import MismatchError, shown
from ...tensors.rules import Copy, rename
from ...tensors.spec import Shape
from .. import MODELS
from .config import ModelConfig
from .experts import expert_copies, expert_shapes, hf_experts
from .model import MTP, Model
from .traits import ExpertsOnHub, Prefixes, Traits

ExpertsForm = Literal["hub", "transformers-5", "per-expert"]
NamesForm = Literal["old", "new"]


class Dialect(NamedTuple):
    """How a Hugging Face directory spells its tensors."""

    experts: ExpertsForm = "hub"  # of a MoE model
    hf_names: NamesForm = "old"  # of a model with later prefixes
    mtp_packed: bool = False  # the experts of a multi-token-prediction head; else one by one


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
    return Dialect(_experts_form(shapes, config, experts_form), "new" if new else "old", packs_head(shapes))


def packs_head(names: Iterable[str]) -> bool:
    """Whether the experts of a multi-token-prediction head are in one tensor, among these names."""
    return any(name.startswith(MTP) and name.endswith(".mlp.experts.gate_up_proj") for name in names)


def dialect_copies(config: ModelConfig, dialect: Dialect) -> list[Copy]:
    """Every tensor of a dialect (left) in the Hub's names and orientation (right)."""
    model = MODELS[config.model_type]
    later = model.traits.later_prefixes if dialect.hf_names == "new" else None
    changed = _changed_experts(config, model, dialect)
    copies: list[Copy] = []
    for name, shape in model.hf_tensors(config).items():
        stem, found, _ = name.partition(".mlp.experts.")
        if not found or f"{stem}.mlp.experts" not in changed:
            copies += rename(_respelled(name, model.prefixes, later) if later else name, name, shape)
    for stem, (theirs, hub) in changed.items():
        copies += expert_copies(hf_experts(stem, theirs), hf_experts(stem, hub), config.text)
    return copies


def one_by_one_is_read(dialect: Dialect, traits: Traits) -> bool:
    """Whether transformers reads the experts of a dialect: of a model whose experts the Hub transposes only packed."""
    return concrete(dialect.experts, traits) != "per-expert" or traits.experts_on_hub != "transposed"


def concrete(form: ExpertsForm, traits: Traits) -> ExpertsOnHub:
    """What a form is for a model."""
    return traits.experts_on_hub if form == "hub" else "packed" if form == "transformers-5" else form


def _changed_experts(
    config: ModelConfig, model: Model, dialect: Dialect
) -> dict[str, tuple[ExpertsOnHub, ExpertsOnHub]]:
    """Where a dialect holds experts otherwise than the Hub: stem of their names -> (its form, the Hub's)."""
    form, hub = concrete(dialect.experts, model.traits), model.traits.experts_on_hub
    stems: dict[str, tuple[ExpertsOnHub, ExpertsOnHub]] = {}
    if config.text.experts and form != hub:
        layers = (i for i in range(config.text.layers) if config.text.is_moe(i))
        stems = {f"{model.text_prefix}layers.{i}.mlp.experts": (form, hub) for i in layers}
    if config.text.experts and config.text.mtp and dialect.mtp_packed:
        stems[f"{MTP}layers.0.mlp.experts"] = ("packed", "per-expert")
    return stems


def _respelled(name: str, now: Prefixes, later: Prefixes) -> str:
    """A name with the later prefixes; `lm_head.weight` stays."""
    for ours, theirs in ((now.vision, later.vision), (now.text, later.text)):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return name


def _experts_form(shapes: Mapping[str, Shape], config: ModelConfig, asked: ExpertsForm | None) -> ExpertsForm:
    """The form of the experts in the layers."""
    traits = MODELS[config.model_type].traits
    if not config.text.experts or asked is not None:
        return _named("hub" if asked is None else concrete(asked, traits), traits)
    listed = {name: shape for name, shape in shapes.items() if ".mlp.experts." in name and not name.startswith(MTP)}
    if any(".mlp.experts.0." in name for name in listed):
        return _named("per-expert", traits)
    if traits.experts_on_hub != "transposed":  # then transformers 5 and the Hub, where it packs them, agree
        return _named("packed" if listed else traits.experts_on_hub, traits)
    return _orientation_of(listed, config)


def _named(form: str, traits: Traits) -> ExpertsForm:
    """The word for a form of a model."""
    if form in ("hub", traits.experts_on_hub):
        return "hub"
    return "transformers-5" if form == "packed" else "per-expert"


def _orientation_of(shapes: Mapping[str, Shape], config: ModelConfig) -> ExpertsForm:
    """Transposed, as on the Hub, or packed, as transformers 5 saves them under the same names."""
    seen = {name: _orientation(name, shape, config) for name, shape in shapes.items()}
    forms = {form for form in seen.values() if form}
    if forms == {"hub", "transformers-5"}:
        listed = ", ".join(
            next(f"{shown(name)} {list(shapes[name])} is {form}" for name, f in seen.items() if f == form)
            for form in sorted(forms)
        )
        raise MismatchError(
            f"the experts are oriented two ways at once: {listed}", "The directory mixes files of different origin."
        )
    square = next((name for name, shape in shapes.items() if len(shape) == 3 and shape[1] == shape[2]), None)
    if not forms and square is not None:
        raise MismatchError(
            f"{shown(square)} {list(shapes[square])} is square, and nothing else shows which way the experts "
            "are oriented",
            "Say it: --experts-form hub for [E, in, out], as on the Hub, or --experts-form transformers-5 for [E, "
            "out, in], as transformers 5 saves it.",
        )
    return "transformers-5" if "transformers-5" in forms else "hub"


def _orientation(name: str, shape: Shape, config: ModelConfig) -> ExpertsForm | None:
    """What one tensor's shape says: None if it is square, or of a shape that fits neither form."""
    stem = name.rpartition(".")[0]
    forms: dict[ExpertsForm, ExpertsOnHub] = {"hub": "transposed", "transformers-5": "packed"}
    fitting = [
        word for word, form in forms.items() if expert_shapes(hf_experts(stem, form), config.text).get(name) == shape
    ]
    return fitting[0] if len(fitting) == 1 else None
