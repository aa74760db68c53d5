"""What a layout is: one trainer's names for the tensors of one or more models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from ..models import MODELS
from ..models.shared.config import ModelConfig
from ..models.shared.traits import Traits
from ..tensors.rules import Rule
from ..tensors.spec import Shape

Spellings = Iterator[tuple[str, str]]


def no_names(config: ModelConfig) -> Iterator[str]:
    """No tensor."""
    yield from ()


@dataclass(frozen=True, slots=True)
class Layout:
    """One trainer's naming.

    Attributes:
        name: as `--layout` takes it.
        trainers: who writes it.
        serves: whether it exists for a model with these traits.
        has: prefixes, for each of which some name must start with it, to recognise the layout.
        holds: substrings, each of which some name must contain, likewise.
        lacks: substrings that no name may contain.
        rules: (config, rows of the vocabulary on the mcore side) -> the table.
        spellings: (other name, name in the table) pairs that mean the same tensor.
        extra_state: modules that carry an `_extra_state` byte entry.
        stacks: module lists that the trainer's torch_dist checkpoints stack on a leading axis, for a config.
        tower: prefix of the vision tower; "" where there is none.
        replicated: it is a Hugging Face tower, which tensor parallelism never cuts.
        own_tp: the tower may be cut by a tensor parallel size of its own.
        untied_hint: what to say when the output layer is missing though the config says untied.
        settle: given the tensors' shapes, the layout with what only they show.
        text: prefix of the language model.
        sequential: rank files hold each expert as a module of its own.
        writes: the formats that its trainers read; () where nobody would load what is written.
        run_config: a trainer of it looks into `iter_*` for a torch_dist checkpoint, and for a run_config.yaml there.
        gdn: whose Gated DeltaNet a hybrid model has: megatron-core's ("core"), ms-swift's with rows grouped by key head
            ("grouped"), or Hugging Face's inside, whole on every rank ("replicated").
        numbered: its trainers know no `release`: they take the `iter_*` of a tracker's number, with args in common.pt.
        less_one: the tensors, by their names in the table, that hold the Hugging Face value minus one; each is one
            Hugging Face tensor and nothing else.
        load: how a torch_dist checkpoint is given to its trainers: whose way it is ("" where it is everybody's), and
            the way, with {0} for the directory and {1} for the checkpoint's folder in it. () where none takes it.
        adapters: whose names adapters (LoRA) of its modules have: "megatron-bridge", "ms-swift".
    """

    name: str
    trainers: str
    serves: Callable[[Traits], bool]
    tower: str
    has: tuple[str, ...]
    lacks: tuple[str, ...]
    rules: Callable[[ModelConfig, int], Iterator[Rule]]
    spellings: Callable[[ModelConfig], Spellings]
    extra_state: Callable[[ModelConfig], Iterator[str]]
    stacks: Callable[[ModelConfig], tuple[str, ...]]
    replicated: bool = False
    own_tp: bool = False
    untied_hint: str = ""
    settle: Callable[[Layout, Mapping[str, Shape], ModelConfig], Layout] | None = None
    text: str = "language_model."
    sequential: bool = False
    writes: tuple[str, ...] = ("torch_dist",)
    run_config: bool = False
    numbered: bool = False
    holds: tuple[str, ...] = ()
    gdn: Literal["core", "grouped", "replicated"] = "core"
    less_one: Callable[[ModelConfig], Iterator[str]] = no_names
    load: tuple[tuple[str, str], ...] = (("", "--load {0}"),)
    adapters: tuple[str, ...] = ()

    def fits(self, names: Iterable[str]) -> bool:
        """Whether the names carry this layout's marks."""
        listed = list(names)
        return (
            all(any(n.startswith(mark) for n in listed) for mark in self.has)
            and all(any(mark in n for n in listed) for mark in self.holds)
            and not any(mark in n for mark in self.lacks for n in listed)
        )

    def in_tower(self, name: str) -> bool:
        """Whether a tensor belongs to the vision tower."""
        return bool(self.tower) and name.startswith(self.tower)

    @property
    def models(self) -> tuple[str, ...]:
        """The model types it exists for."""
        return tuple(name for name, model in MODELS.items() if self.serves(model.traits))

    @property
    def is_half(self) -> bool:
        """Whether it names the language model, saved alone, of models that have a vision tower."""
        return not self.tower and all(MODELS[name].traits.tower for name in self.models)

    @property
    def why(self) -> str:
        """What it is seen by, in words."""
        holds = f", some have {' and '.join(self.holds)}" if self.holds else ""
        lacks = f", none with {' or '.join(self.lacks)}" if self.lacks else ""
        return f"names begin with {' and '.join(self.has)}{holds}{lacks}"
