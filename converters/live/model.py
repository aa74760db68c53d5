"""A model in a trainer's naming: its table, looked up by either side's names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

from ..checkpoint.mapping import mapped_table
from ..errors import MismatchError
from ..layouts import LAYOUTS, named
from ..layouts.layout import Layout
from ..models import MODELS
from ..models.shared.config import ModelConfig
from ..models.shared.hf_dialects import Dialect, ExpertsForm, NamesForm, dialect_copies
from ..tensors.joined import joined
from ..tensors.rules import Copy, flipped
from .config import AnyConfig, model_config
from .table import Found, Table


@dataclass(frozen=True)
class LiveModel:
    """A model in a trainer's naming.

    Attributes:
        config: the model.
        layout: the trainer's naming.
        experts: how Hugging Face tensors hold experts, as `--experts-form` takes it; None: as on the Hub, but an
            expert that is given by itself one by one.
        hf_names: prefixes of a model that has older and newer ones (Qwen2.5-VL: "new" are those of transformers 4.52
            and later in a model's state_dict).
        divisor: the trainer's make_vocab_size_divisible_by, as an explanation of padding beside the usual ones.
    """

    config: ModelConfig
    layout: Layout
    experts: ExpertsForm | None = None
    hf_names: NamesForm = "old"
    divisor: int | None = None

    def table(self, experts: ExpertsForm | None = None) -> Table:
        """The table, proven when it is first asked for; `experts` stands in the place of the model's own form."""
        form = self.experts or experts or "hub"
        if form not in self._tables:
            self._tables[form] = _table(self.config, self.layout.name, form, self.hf_names)
        return self._tables[form]

    @cached_property
    def _tables(self) -> dict[ExpertsForm, Table]:
        return {}

    @cached_property
    def known_names(self) -> dict[tuple[str, int, int], Found | None]:
        """Live names that were looked up, with ep_rank and ep_size."""
        return {}

    def table_for(self, found: Found) -> Table:
        """The table for a parameter: an expert that is given by itself is one by itself on the other side, too."""
        return self.table() if found.expert is None else self.table("per-expert")


def live_model(
    config: AnyConfig | ModelConfig | LiveModel,
    layout: str | None = None,
    *,
    experts: ExpertsForm | None = None,
    hf_names: NamesForm = "old",
    mtp: bool = True,
    make_vocab_size_divisible_by: int | None = None,
) -> LiveModel:
    """A model in a trainer's naming. Its table is proven at first use, so make it once and keep it.

    Args:
        config: the whole model's config: a transformers config, a dict, or the path of its directory; or what this
            function returned before, if the other arguments say nothing else.
        layout: a key of LAYOUTS; None: "mbridge", or the model's own default where that has another name.
        experts, hf_names, make_vocab_size_divisible_by: see LiveModel.
        mtp: the trainer's model has the multi-token-prediction head that its config promises.

    Raises:
        MismatchError: no layout of that name, or it is another model's.
        CorruptError, UnsupportedError: a config that is incomplete, or of another model.
    """
    if isinstance(config, LiveModel):
        wanted = (layout, experts, None if hf_names == "old" else hf_names, make_vocab_size_divisible_by)
        _check_made(config, wanted, mtp=mtp)
        return config
    model = model_config(config)
    chosen = named(layout or MODELS[model.model_type].default_layout)
    if model.model_type not in chosen.models:
        known = ", ".join(name for name, other in LAYOUTS.items() if model.model_type in other.models)
        raise MismatchError(
            f"layout {chosen.name} is one of {', '.join(chosen.models)}, not of {model.model_type}",
            f"For {model.model_type} there are: {known}.",
        )
    if not chosen.tower:
        model = replace(model, vision=None)
    if not mtp:
        model = replace(model, text=replace(model.text, mtp=0))
    return LiveModel(model, chosen, experts, hf_names, make_vocab_size_divisible_by)


def _check_made(made: LiveModel, wanted: Sequence[object], *, mtp: bool) -> None:
    """What is asked of a model that is made already is what it was made with."""
    have = (made.layout.name, made.experts, made.hf_names, made.divisor)
    other = [f"{now}, not {then}" for now, then in zip(wanted, have, strict=True) if now not in (None, then)]
    if not mtp and made.config.text.mtp:
        other.append("mtp=False")
    if other:
        raise MismatchError(
            f"the model was made with other arguments than are given: {'; '.join(other)}", "Give them to live_model."
        )


@lru_cache(maxsize=16)
def _table(config: ModelConfig, layout: str, experts: ExpertsForm, hf_names: NamesForm) -> Table:
    naming = mapped_table(named(layout), config, config.text.vocab)
    copies: Sequence[Copy] = naming.table.copies
    dialect = Dialect(experts, hf_names)
    if dialect != Dialect():
        copies = joined(copies, flipped(dialect_copies(config, dialect)))
    return Table(copies, frozenset(naming.less_one))
