"""Names of adapters in Megatron checkpoints: two families, folded into one form, and told apart from the base's.

| Megatron-Bridge                                 | ms-swift                      | here          |
|-------------------------------------------------|-------------------------------|---------------|
| P.adapter.linear_in.weight                      | P.lora_A.default.weight       | A of P        |
| P.adapter.linear_out.weight                     | P.lora_B.default.weight       | B of P        |
| P.adapter.adapter_q.linear_in.weight (k, v, gate, up) |                         | A of P's part q |
| P.weight, or P.to_wrap.weight                   | P.base_layer.weight           | P.weight      |

P is a module of the base under canonical names: "decoder.layers.0.self_attention.linear_qkv".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from ..errors import CorruptError, MismatchError, UnsupportedError, shown
from .adapter import Kind

Family = Literal["megatron-bridge", "ms-swift"]

TITLES: dict[Family, str] = {
    "megatron-bridge": "Megatron-Bridge's names (adapter.linear_in, adapter.linear_out)",
    "ms-swift": "ms-swift's names (lora_A, lora_B)",
}
"""What a family is called in a sentence."""

PARTS = (("q", "k", "v"), ("gate", "up"))
"""The parts of a fused module that have adapters of their own, in the order of their rows: all are there, or none."""

_BASE = ("to_wrap", "base_layer")
"""What wraps a module that has an adapter calls the module itself."""

_MARKS = (
    ".adapter.",
    ".lora_",
    ".to_wrap.",
    ".base_layer.",
    ".modules_to_save.",
    ".original_module.",
    "magnitude",
)
"""One of these is in every name that only a checkpoint with an adapter has."""

_HALVES = {"linear_in": "A", "linear_out": "B", "lora_A": "A", "lora_B": "B"}


class Place(NamedTuple):
    """Where an adapter is: a module of the base, and which part of it; "": all of it."""

    module: str
    part: str = ""

    def __str__(self) -> str:
        return f"{self.module} ({self.part})" if self.part else self.module


class Halves(NamedTuple):
    """The two matrices of one adapter, by their names in the files."""

    a: str
    b: str


@dataclass(frozen=True)
class Found:
    """An adapter, as far as names tell.

    Attributes:
        family: whose names it has.
        halves: of every place, in order.
    """

    family: Family
    halves: Mapping[Place, Halves]

    @property
    def targets(self) -> tuple[str, ...]:
        """The kinds of modules that it changes: "linear_qkv", "linear_fc1 (gate)"."""
        last = (place._replace(module=place.module.rpartition(".")[2]) for place in self.halves)
        return tuple(dict.fromkeys(map(str, last)))

    @property
    def kind(self) -> Kind:
        """The same in short."""
        return Kind(self.family, TITLES[self.family], len(self.halves), self.targets)


class Separated(NamedTuple):
    """The tensors of a checkpoint with an adapter, or without one.

    Attributes:
        base: plain name -> name in the files, of all that is not the adapter's.
        adapter: None: there is none.
    """

    base: dict[str, str]
    adapter: Found | None

    @property
    def alone(self) -> bool:
        """Whether the adapter is all there is."""
        return self.adapter is not None and not self.base


class _Half(NamedTuple):
    family: Family
    place: Place
    half: str
    adapter: str


def separate(names: Mapping[str, str]) -> Separated:
    """Tell the adapter's tensors from the base's.

    Args:
        names: canonical name without wrappers' prefixes -> name in the files.

    Raises:
        UnsupportedError: DoRA, modules trained whole, several adapters, and other forms that are not read; by name.
        CorruptError: half of an adapter is missing.
        MismatchError: a module of the base is there twice.
    """
    base: dict[str, str] = {}
    halves: dict[_Half, str] = {}
    wrapped: dict[str, str] = {}
    for name, file in names.items():
        if not any(mark in name for mark in _MARKS):
            _put(base, name, file)
            continue
        half = _half_of(name)
        if half:
            halves[half] = file
        else:
            plain = _base_of(name)
            wrapped[plain.rpartition(".")[0]] = file
            _put(base, plain, file)
    found = _found(halves) if halves else None
    _check_wrapped(wrapped, found)
    if found:
        _check_base(base, found)
    return Separated(base, found)


def _put(base: dict[str, str], name: str, file: str) -> None:
    if name in base:
        raise MismatchError(
            f"{shown(file)} and {shown(base[name])} are the same tensor, with an adapter and without",
            "The checkpoint holds two models.",
        )
    base[name] = file


def _half_of(name: str) -> _Half | None:
    """What a name says of an adapter; None: it is the base's, or of no form that is read."""
    parts = name.split(".")
    if parts[-1] != "weight" or len(parts) < 4:
        return None
    *module, first, second, _ = parts
    if first in ("lora_A", "lora_B"):
        return _Half("ms-swift", Place(".".join(module)), _HALVES[first], second)
    if second not in ("linear_in", "linear_out"):
        return None
    part = first.removeprefix("adapter_") if first.startswith("adapter_") else ""
    if part in sum(PARTS, ()):
        *module, first = module
    return _Half("megatron-bridge", Place(".".join(module), part), _HALVES[second], "") if first == "adapter" else None


def _base_of(name: str) -> str:
    """The plain name of a base's tensor that stands inside a wrapper.

    Raises:
        UnsupportedError: it is none.
    """
    parts = name.split(".")
    plain = [part for part in parts if part not in _BASE]
    if len(plain) == len(parts) - 1 and not any(mark in ".".join(plain) for mark in _MARKS):
        return ".".join(plain)
    what, hint = next((said for part, said in _REFUSED.items() if part in name), _UNKNOWN)
    raise UnsupportedError(f"{shown(name)} {what}", hint)


_MERGE = "Merge it into the model with the trainer first."
_REFUSED = {
    "magnitude": ("is part of a DoRA adapter, which changes a weight's norm, too", _MERGE),
    "modules_to_save.": ("is a module that was trained whole beside an adapter (modules_to_save)", _MERGE),
    "original_module.": ("is a module that was trained whole beside an adapter (modules_to_save)", _MERGE),
    "lora_embedding_": ("is an adapter of an embedding", _MERGE),
    ".bias": ("is a bias of an adapter", _MERGE),
}
"""Part of a name -> what it is, and what to do."""

_UNKNOWN = ("is part of an adapter (LoRA) of a form that vlconv does not know", _MERGE)


def _found(halves: Mapping[_Half, str]) -> Found:
    families = {half.family for half in halves}
    adapters = sorted({half.adapter for half in halves})
    if len(families) > 1 or len(adapters) > 1:
        named = ", ".join(map(shown, adapters)) if len(families) == 1 else "of two families of names"
        raise UnsupportedError(
            f"the checkpoint holds several adapters: {named}", "Save it with one of them, or merge them first."
        )
    (family,) = families
    by_place: dict[Place, dict[str, str]] = {}
    for half, file in halves.items():
        by_place.setdefault(half.place, {})[half.half] = file
    for place, both in by_place.items():
        if len(both) < 2:
            raise CorruptError(
                f"{shown(next(iter(both.values())))} is half of an adapter, and the other half of {shown(str(place))} "
                "is not there",
                "The checkpoint is incomplete: save it again.",
            )
    _check_parts(by_place)
    return Found(family, {place: Halves(both["A"], both["B"]) for place, both in by_place.items()})


def _check_parts(places: Iterable[Place]) -> None:
    """Of a fused module either all parts have an adapter or none."""
    by_module: dict[str, set[str]] = {}
    for place in places:
        by_module.setdefault(place.module, set()).add(place.part)
    for module, parts in by_module.items():
        if parts != {""} and parts not in map(set, PARTS):
            listed = ", ".join(sorted(part or "the whole" for part in parts))
            raise UnsupportedError(
                f"{shown(module)} has adapters of {listed} alone",
                "Adapters of q, k and v, or of gate and up, are read all together.",
            )


def _check_wrapped(wrapped: Mapping[str, str], found: Found | None) -> None:
    """A module inside a wrapper has an adapter.

    Raises:
        CorruptError: it has none, so what it is to be changed by is lost.
    """
    known = {place.module for place in found.halves} if found else set()
    if lost := next((file for module, file in wrapped.items() if module not in known), None):
        raise CorruptError(
            f"{shown(lost)} is the base of an adapter, and the adapter is not there",
            "The checkpoint is incomplete: save it again, or give the trainer's merged one.",
        )


def _check_base(base: Mapping[str, str], found: Found) -> None:
    """Beside an adapter there is its whole base or nothing.

    Raises:
        UnsupportedError: single modules, which were trained with it.
    """
    modules = {name.rpartition(".")[0] for name in base}
    if base and modules.isdisjoint(place.module for place in found.halves):
        raise UnsupportedError(
            f"beside an adapter the checkpoint holds {len(base)} tensors that were trained whole, such as "
            f"{shown(next(iter(base)))}, and not the model that they are of",
            _MERGE,
        )
