"""An adapter of a Megatron checkpoint, read through the table of its base."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

from ..errors import MismatchError, UnsupportedError, shown
from ..formats.opened import Opened
from ..layouts.layout import Layout
from ..layouts.shared.splits import split_of
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..tensors.mapped import Mapped
from ..tensors.rules import Copy, Table
from ..tensors.sharding import Split
from ..tensors.spec import Box, Reader, Shape
from ..tensors.tiling import tiling_fault
from .adapter import Adapter, Pair
from .chunk_order import Run, Shown, equal_runs, in_halves, in_sections
from .derived import Piece, copies_of, parts_of, pieces_of
from .names import Found, Halves, Place
from .stated import SIZES, Told

FORMAT = "torch_dist"
"""The one whose chunks show what the order of rows depends on."""

REPORT = "This is a fault of vlconv: please report it with the config.json."


class Base(NamedTuple):
    """What an adapter is read with.

    Attributes:
        layout: whose names its modules have.
        config: the model's integers.
        table: the layout's, for that config.
    """

    layout: Layout
    config: ModelConfig
    table: Table


def adapter_of(found: Found, told: Told, base: Base, opened: Opened, reader: Reader) -> Adapter:
    """Every pair of an adapter, under the names of the Hugging Face modules that it changes.

    Args:
        found: its names.
        told: what is stated of it.
        base: what it is read with.
        opened: the files.
        reader: their tensors, by their names in the files.

    Raises:
        UnsupportedError: a form that is not read, or an order of rows that does not show.
        MismatchError: it does not fit the base, or nobody says its alpha.
    """
    check_format(opened)
    reading = _Reading(found, told, base, opened)
    copies, pairs = reading.all()
    order = {name: at for at, name in enumerate(base.table.right())}
    pairs.sort(key=lambda pair: (order[pair.weight.name], pair.weight.offsets))
    return Adapter(Mapped(reader, copies), tuple(pairs), _said(told, pairs))


def check_format(opened: Opened) -> None:
    """Raises UnsupportedError for a checkpoint with an adapter in a format whose chunks show nothing of ranks."""
    if opened.format != FORMAT:
        raise UnsupportedError(
            f"the checkpoint holds an adapter (LoRA) in format {opened.format}; adapters are read from {FORMAT}",
            f"Save it with --ckpt-format {FORMAT}, or merge it with the trainer.",
        )


def _said(told: Told, pairs: Sequence[Pair]) -> str:
    ranks = ", ".join(map(str, sorted({pair.rank for pair in pairs})))
    assert told.alpha
    root = ", divided by the square root of the rank" if told.rslora else ""
    return f"rank {ranks} from the tensors' shapes, alpha {told.alpha.value:g} from {told.alpha.where}{root}"


class _Reading:
    """The steps from names to pairs, which all need the same."""

    def __init__(self, found: Found, told: Told, base: Base, opened: Opened) -> None:
        self.found, self.told, self.base, self.opened = found, told, base, opened
        self.traits, self.text = model_of(base.config).traits, base.config.text
        self.weights: dict[str, list[Copy]] = {}
        for copy in base.table.copies:
            self.weights.setdefault(copy.left.name, []).append(copy)
        self.shapes = base.table.left()
        self.spelled = dict(base.layout.spellings(base.config))

    def all(self) -> tuple[list[Copy], list[Pair]]:
        """The copies of every A and B, and the pairs."""
        copies: list[Copy] = []
        pairs: list[Pair] = []
        for place, halves in self.found.halves.items():
            pieces = self._pieces(place)
            rank, shape = self._checked(place, halves)
            order = self._order(place, halves, shape)
            alpha = self.told.alpha_over(rank)
            for piece in pieces:
                name = f"{piece.module}.{place.part}".rstrip(".")
                pair = Pair(
                    piece.module, piece.weight, piece.transpose, f"{name}.lora_A", f"{name}.lora_B", rank, alpha
                )
                rows = list(copies_of(halves.b, shape, piece, order, pair.b))
                _prove(pair, rows)
                copies += [_whole_a(halves.a, self.opened.specs[halves.a].shape, piece, pair.a), *rows]
                pairs.append(pair)
        return copies, pairs

    def _weight(self, place: Place) -> str:
        """The base's tensor that an adapter changes.

        Raises:
            MismatchError: there is none.
        """
        name = f"{place.module}.weight"
        name = self.spelled.get(name, name)
        if name not in self.weights:
            raise MismatchError(
                f"the adapter changes {shown(place.module)}, and this {self.base.config.model_type} has no such module "
                f"in layout {self.base.layout.name}",
                "The adapter belongs to another model, or to another trainer's names: --layout says whose.",
            )
        return name

    def _checked(self, place: Place, halves: Halves) -> tuple[int, Shape]:
        """Rank and shape of B, once A and B fit one another and the base.

        Raises:
            MismatchError: they do not.
        """
        a, b = (self.opened.specs[name].shape for name in halves)
        base = self.shapes[self._weight(place)]
        rank = b[-1] if b else 0
        rows = None if place.part else base[-2]
        experts = len(base) == 3
        lead = {(), (1,), base[:1]} if experts else {()}
        fits = len(base) > 1 and len(a) > 1 and len(b) > 1 and a[-2] == rank > 0 and a[-1] == base[-1]
        if not fits or rows not in (None, b[-2]) or a[:-2] not in lead or b[:-2] not in lead:
            raise MismatchError(
                f"{shown(halves.a)} {shown(list(a))} and {shown(halves.b)} {shown(list(b))} are no adapter of "
                f"{shown(place.module)}.weight {list(base)}",
                "The adapter belongs to another model, or the checkpoint is damaged.",
            )
        self.told.check_rank(halves.a, rank, expert=experts)
        return rank, b

    def _pieces(self, place: Place) -> list[Piece]:
        pieces = pieces_of(place, self.weights[self._weight(place)], self.text)
        if not place.part:
            return pieces
        mine = [(other.part, h.b) for other, h in self.found.halves.items() if other.module == place.module]
        return [parts_of(place, pieces, {part: sum(self.opened.specs[b].shape[-2:-1]) for part, b in mine})]

    def _order(self, place: Place, halves: Halves, shape: Shape) -> list[Run]:
        """Where the rows of B are among the base's."""
        split = self._split(place)
        if split.axis == 0 and (way := _depends(place, split, self.found.family)):
            seen = Shown(
                halves.b, shape[-2], self._cuts(halves.b, -2), self._ranks.get((split.expert, split.tower), frozenset())
            )
            return in_halves(seen) if way == "halves" else in_sections(seen, split)
        return [Run(0, 0, shape[-2])]

    def _split(self, place: Place) -> Split:
        return split_of(self._weight(place), self.base.layout, self.traits, self.text)

    def _cuts(self, name: str, axis: int) -> int:
        """Into how many equal chunks a tensor is cut on an axis; 0: they are not equal."""
        shape = self.opened.specs[name].shape
        return equal_runs(self.opened.cuts(name, len(shape) + axis), shape[axis])

    @cached_property
    def _ranks(self) -> Mapping[tuple[bool, bool], frozenset[int]]:
        """(of experts, of a tower of its own size) -> the parallel sizes that chunks and words show."""
        found: defaultdict[tuple[bool, bool], set[int]] = defaultdict(set)
        for expert, name in zip((False, True), SIZES, strict=True):
            if name in self.told.sizes:
                found[expert, False].add(self.told.sizes[name])
        for place, halves in self.found.halves.items():
            split = self._split(place)
            found[split.expert, split.tower].update(self._shown(place, halves, split))
        return {kind: frozenset(sizes) for kind, sizes in found.items()}

    def _shown(self, place: Place, halves: Halves, split: Split) -> Iterator[int]:
        """The parallel sizes that the chunks of one adapter show."""
        if split.axis == 1:
            yield self._cuts(halves.a, -1)
        if split.axis == 0 and self.found.family == "megatron-bridge":  # it divides the rank, too
            yield self._cuts(halves.a, -2)
        if split.axis == 0 and not _depends(place, split, self.found.family):
            yield self._cuts(halves.b, -2)


def _prove(pair: Pair, rows: Sequence[Copy]) -> None:
    """Every row of a module's B comes from one place, and there are as many as the weight has.

    Raises:
        MismatchError: a fault of vlconv.
    """
    out = pair.weight.lengths[-1 if pair.transpose else -2]
    fault = tiling_fault((out, pair.rank), [copy.right[1:] for copy in rows])
    if fault:
        raise MismatchError(f"the rows of the adapter of {shown(pair.module)} {fault}", REPORT)


def _depends(place: Place, split: Split, family: str) -> str:
    """How the order of B's rows may depend on the parallel size of a column-parallel base; "": it does not."""
    if place.part in ("gate", "up"):
        return "halves"
    if place.part:
        return ""
    if split.sections:
        return "sections"
    return "halves" if family == "megatron-bridge" and place.module.endswith(".linear_fc1") else ""


def _whole_a(name: str, shape: Shape, piece: Piece, to: str) -> Copy:
    """A is the same for everything that its module is; of experts it is one's."""
    lead = ((0 if shape[0] == 1 else piece.expert or 0),) if len(shape) == 3 else ()
    return Copy(Box(name, (*lead, 0, 0), (*(1 for _ in lead), *shape[-2:])), Box(to, (0, 0), shape[-2:]))
