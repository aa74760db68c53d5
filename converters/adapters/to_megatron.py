"""An adapter under the names that Megatron-Bridge gives it in a checkpoint that holds nothing else.

Megatron has one module for several of Hugging Face's: linear_qkv for q, k and v, linear_fc1 for gate and up. Where
those have one A, the module has one adapter (class LoRA). Where they have an A each, each has an adapter of its own,
and then every linear_qkv and every gated linear_fc1 of the model does (class CanonicalLoRA). Rows of B go the way of
the base's rows: through the layout's own table.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import MismatchError, UnsupportedError, shown
from ..layouts.layout import Layout
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..tensors.mapped import Mapped
from ..tensors.rules import Copy, Table
from ..tensors.spec import Box, Reader, Shape, TensorSpec
from .adapter import Adapter, Pair
from .derived import Piece, pieces_of
from .equal import equal_bits
from .names import Place
from .zeros import WithZeros

PARTS = {"linear_qkv": ("q", "k", "v"), "linear_fc1": ("gate", "up")}
"""Modules that CanonicalLoRA takes apart, and their parts in the order of their rows in Hugging Face."""


@dataclass
class Module:
    """A module of the layout that gets an adapter.

    Attributes:
        name: in the table, without `.weight`.
        shape: of its weight.
        pieces: the Hugging Face modules that it is.
        pairs: of each of these its change; None where it has none.
    """

    name: str
    shape: Shape
    pieces: list[Piece]
    pairs: list[Pair | None]

    @property
    def kind(self) -> str:
        """What it is called: "linear_qkv"."""
        return self.name.rpartition(".")[2]

    @property
    def first(self) -> Pair:
        """A pair of it."""
        return next(pair for pair in self.pairs if pair)

    @property
    def gated(self) -> bool:
        """Whether it is a linear_fc1 of gate and up."""
        return self.kind == "linear_fc1" and len({piece.module.rpartition(".")[2] for piece in self.pieces}) > 1

    @property
    def experts(self) -> int:
        """How many experts it holds; 0: it holds none."""
        return self.shape[0] if len(self.shape) == 3 else 0


class Named(NamedTuple):
    """An adapter in a layout's names.

    Attributes:
        reader: the tensors: linear_in and linear_out of each module, or of each part of one.
        canonical: linear_qkv and gated linear_fc1 are taken apart.
        modules: that have one.
        alpha: of all of it.
        zeros: Hugging Face modules that have no change, of modules that are taken apart: theirs are zeros.
    """

    reader: Reader
    canonical: bool
    modules: list[Module]
    alpha: float
    zeros: list[str]

    @property
    def bound_to_one(self) -> list[str]:
        """Modules whose rows Megatron-Bridge takes for others where tensor parallelism is not 1.

        It cuts each rank's rows of whatever is called linear_fc1 in halves, and those of in_proj in no sections.
        """
        halved = (m for m in self.modules if m.kind == "linear_fc1" and not m.experts)
        cut = [m.name for m in halved if self.canonical or not m.gated]
        return [*cut, *(m.name for m in self.modules if m.kind == "in_proj")]


def in_megatron_names(adapter: Adapter, layout: Layout, config: ModelConfig, table: Table) -> Named:
    """The adapter in a layout's names.

    Args:
        adapter: in Hugging Face's modules.
        layout: whose names.
        config: the model.
        table: the layout's.

    Raises:
        UnsupportedError: Megatron-Bridge has no names for it.
    """
    alpha = _alpha(adapter.pairs)
    modules = _modules(adapter, config, table)
    _refuse_lost(adapter, modules)
    apart = [module for module in modules if not _one_a(module, adapter.reader)]
    for module in apart:
        if not _is_canonical(module, layout):
            raise UnsupportedError(_why_not(module), HINT)
    if apart and model_of(config).traits.gated_attention:
        raise UnsupportedError(
            f"{shown(apart[0].first.module)} and what lies beside it in {shown(apart[0].name)} have an A each, and "
            "Megatron-Bridge's CanonicalLoRA knows no gated attention",
            HINT,
        )
    making = _Making(adapter.reader)
    for module in modules:
        if apart and _is_canonical(module, layout):
            making.take_apart(module, config)
        else:
            making.whole(module)
    return Named(making.reader(), bool(apart), modules, alpha, making.zeros)


HINT = "Merge it in Hugging Face (peft's merge_and_unload), and convert the merged model."


def _why_not(module: Module) -> str:
    alone = next((p.module for p, pair in zip(module.pieces, module.pairs, strict=True) if pair is None), None)
    if alone:
        return (
            f"{shown(module.first.module)} has an adapter and {shown(alone)} has none: in Megatron they are one "
            f"module, {shown(module.name)}, with one adapter"
        )
    others = [pair for pair in module.pairs if pair and pair.module != module.first.module]
    return (
        f"{shown(module.first.module)} and {shown(others[0].module)} have an A each: in Megatron they are one module, "
        f"{shown(module.name)}, with one adapter"
    )


def _alpha(pairs: Sequence[Pair]) -> float:
    """The one alpha that a training has."""
    first = pairs[0]
    other = next((pair for pair in pairs if pair.alpha != first.alpha), None)
    if other:
        raise UnsupportedError(
            f"{shown(first.module)} has alpha {shown(first.alpha)}, {shown(other.module)} has {shown(other.alpha)}: "
            "Megatron-Bridge has one for all",
            HINT,
        )
    return first.alpha


def _modules(adapter: Adapter, config: ModelConfig, table: Table) -> list[Module]:
    """The layout's modules that the adapter changes, in the table's order."""
    by_module = {pair.module: pair for pair in adapter.pairs}
    changed = {pair.weight.name for pair in adapter.pairs}
    copies: dict[str, list[Copy]] = {}
    touched: set[str] = set()
    for copy in table.copies:
        if copy.left.name.endswith(".weight"):
            copies.setdefault(copy.left.name, []).append(copy)
            touched |= {copy.left.name} if copy.right.name in changed else set()
    shapes, found = table.left(), []
    for name, listed in copies.items():
        if name in touched:
            module = name.removesuffix(".weight")
            pieces = pieces_of(Place(module), listed, config.text)
            pairs = [by_module.get(piece.module) for piece in pieces]
            if any(pairs):
                found.append(Module(module, shapes[name], pieces, pairs))
    return found


def _refuse_lost(adapter: Adapter, modules: Sequence[Module]) -> None:
    """Every change has a module of the layout, which all of its rows are in.

    Raises:
        UnsupportedError: one has none, as of what is a bare parameter in Megatron (a shared expert's gate).
    """
    both = (both for module in modules for both in zip(module.pieces, module.pairs, strict=True))
    placed = {pair.module for piece, pair in both if pair and piece.weight == pair.weight}
    lost = [pair.module for pair in adapter.pairs if pair.module not in placed]
    if lost:
        raise UnsupportedError(
            f"{len(lost)} modules have an adapter, such as {shown(lost[0])}, and are no linear layers in Megatron", HINT
        )


def _one_a(module: Module, reader: Reader) -> bool:
    """Whether all that a module is has one A, or every expert has one of its own."""
    by_expert: dict[int | None, list[Pair | None]] = {}
    for piece, pair in zip(module.pieces, module.pairs, strict=True):
        by_expert.setdefault(piece.expert, []).append(pair)
    return all(_same(pairs, reader) for pairs in by_expert.values())


def _same(pairs: Sequence[Pair | None], reader: Reader) -> bool:
    first = pairs[0]
    return first is not None and all(pair is not None and equal_bits(reader, first.a, pair.a) for pair in pairs)


def _is_canonical(module: Module, layout: Layout) -> bool:
    """Whether CanonicalLoRA takes a module apart: no linear_fc1 of experts or of a vision tower, gated or not."""
    if module.kind == "linear_fc1":
        return not module.experts and not layout.in_tower(module.name)
    return module.kind in PARTS


class _Making:
    """The copies of all tensors, in the making; left is the adapter's, right Megatron's."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._copies: list[Copy] = []
        self._zeros: list[TensorSpec] = []
        self.zeros: list[str] = []

    def reader(self) -> Reader:
        return WithZeros(Mapped(self._reader, self._copies), self._zeros)

    def whole(self, module: Module) -> None:
        """One adapter for all that a module is."""
        a, b = f"{module.name}.adapter.linear_in.weight", f"{module.name}.adapter.linear_out.weight"
        done: set[int | None] = set()
        for piece, pair in zip(module.pieces, module.pairs, strict=True):
            assert pair
            if piece.expert not in done:
                done.add(piece.expert)
                self._put(pair.a, a, piece.expert, (0, 0, pair.rank), self._reader.specs[pair.a].shape[1])
            for row, at, count in piece.rows:
                self._put(pair.b, b, piece.expert, (at, row, count), pair.rank)

    def _put(self, left: str, right: str, expert: int | None, rows: tuple[int, int, int], columns: int) -> None:
        """Rows (from, to, how many) of a matrix, or of one expert's."""
        begin, row, count = rows
        lead, one = ((), ()) if expert is None else ((expert,), (1,))
        copy = Copy(Box(left, (begin, 0), (count, columns)), Box(right, (*lead, row, 0), (*one, count, columns)))
        self._copies.append(copy)

    def take_apart(self, module: Module, config: ModelConfig) -> None:
        """An adapter for each part; B's rows in Hugging Face's own order, as the trainer has them."""
        for part, (pair, begin, rows) in zip(PARTS[module.kind], _parts(module), strict=True):
            stem = f"{module.name}.adapter.adapter_{part}"
            a, b = f"{stem}.linear_in.weight", f"{stem}.linear_out.weight"
            if pair:
                self._put(pair.a, a, None, (0, 0, pair.rank), module.shape[1])
                self._put(pair.b, b, None, (begin, 0, rows), pair.rank)
                continue
            rank, dtype = module.first.rank, self._reader.specs[module.first.a].dtype
            self._zeros += [TensorSpec(a, (rank, module.shape[1]), dtype), TensorSpec(b, (rows, rank), dtype)]
            self.zeros.append(module.pieces[PARTS[module.kind].index(part)].module)


def _parts(module: Module) -> Iterator[tuple[Pair | None, int, int]]:
    """Of each part its pair, the first of its rows in the pair's B, and how many they are.

    A vision tower's qkv is one module in Hugging Face, too: three equal parts of it.
    """
    parts = len(PARTS[module.kind])
    if len(module.pieces) == parts:
        for piece, pair in zip(module.pieces, module.pairs, strict=True):
            yield pair, 0, piece.weight.lengths[0]
    elif len(module.pieces) == 1:
        rows = module.shape[0] // parts
        yield from ((module.pairs[0], n * rows, rows) for n in range(parts))
    else:
        raise MismatchError(
            f"{shown(module.name)} is {len(module.pieces)} modules of Hugging Face", "Please report it."
        )
