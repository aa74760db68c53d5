"""Where B's rows belong: derived from the base's own table, so that there is no second mapping.

The table says which rows of P.weight are which rows of which Hugging Face tensors. B of P has the same rows, so its
boxes are those of P.weight with the columns replaced by the rank; A is the same for every tensor that P.weight is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import MismatchError, UnsupportedError, shown
from ..models.shared.config import TextConfig
from ..models.shared.experts import Experts, expert_copies, hf_experts
from ..tensors.rules import Copy
from ..tensors.spec import Box, Shape
from .chunk_order import Run
from .names import PARTS, Place


class Piece(NamedTuple):
    """Rows of one module of the base, and the Hugging Face module that they are.

    Attributes:
        module: as of Pair: without `.weight`, experts one by one.
        rows: (first row in P.weight, first row in the module, how many), in order.
        weight: the box of the Hub's tensor that the module is.
        transpose: the Hub holds it as [in, out].
        expert: of which the rows are; None: P is no stack of experts.
    """

    module: str
    rows: tuple[tuple[int, int, int], ...]
    weight: Box
    transpose: bool = False
    expert: int | None = None


def pieces_of(place: Place, copies: Sequence[Copy], text: TextConfig) -> list[Piece]:
    """The Hugging Face modules that a module of the base is.

    Args:
        place: of the adapter; its part is not looked at.
        copies: those of the table whose left side is the module's weight.
        text: the language model's integers.

    Raises:
        UnsupportedError: the module is no matrix.
    """
    axes = len(copies[0].left.lengths)
    if axes == 3 and ".experts." in place.module:
        apart = {copy.left: copy for copy in copies}
        return [_expert(b, module, apart.get(b, copies[0])) for module, b in _experts(place.module, copies, text)]
    if axes != 2 or any(copy.transpose or copy.left.offsets[1] for copy in copies):
        raise UnsupportedError(
            f"{shown(place.module)} has an adapter, and its weight is no matrix",
            "Adapters of linear layers are read.",
        )
    by_tensor: dict[str, list[Copy]] = {}
    for copy in copies:
        by_tensor.setdefault(copy.right.name, []).append(copy)
    return [_rows_of(name, listed) for name, listed in by_tensor.items()]


def _rows_of(name: str, copies: Sequence[Copy]) -> Piece:
    """The rows of one Hugging Face tensor."""
    first = min(copy.right.offsets[0] for copy in copies)
    stop = max(copy.right.offsets[0] + copy.right.lengths[0] for copy in copies)
    columns = copies[0].right.lengths[1]
    rows = tuple((c.left.offsets[0], c.right.offsets[0] - first, c.left.lengths[0]) for c in copies)
    return Piece(name.removesuffix(".weight"), rows, Box(name, (first, 0), (stop - first, columns)))


def _experts(module: str, copies: Sequence[Copy], text: TextConfig) -> Iterator[tuple[str, Box]]:
    """Each expert's modules, and their boxes of the stacked weight."""
    name, right = copies[0].left.name, copies[0].right
    stem = right.name.rpartition(".")[0]
    if len(right.lengths) == 2:  # stem.{e}.gate_proj.weight
        stem = stem.rpartition(".")[0].rpartition(".")[0]
    layer = module.rpartition(".")[0]
    ours = Experts("packed", f"{layer}.linear_fc1.weight", f"{layer}.linear_fc2.weight")
    for copy in expert_copies(ours, hf_experts(stem, "per-expert"), text):
        if copy.left.name == name:
            yield copy.right.name.removesuffix(".weight"), copy.left


def _expert(box: Box, module: str, copy: Copy) -> Piece:
    """One expert's module; `copy`: that its box lies in."""
    expert, row = box.offsets[0], box.offsets[1]
    moved = [a - b for a, b in zip(box.offsets, copy.left.offsets, strict=True)]
    lengths = list(box.lengths)
    if copy.transpose:
        moved[-1], moved[-2], lengths[-1], lengths[-2] = moved[-2], moved[-1], lengths[-2], lengths[-1]
    axes = len(copy.right.lengths)
    begin = tuple(a + b for a, b in zip(copy.right.offsets, moved[-axes:], strict=True))
    weight = Box(copy.right.name, begin, tuple(lengths[-axes:]))
    return Piece(module, ((row, 0, box.lengths[1]),), weight, copy.transpose, expert)


def parts_of(place: Place, pieces: Sequence[Piece], rows: Mapping[str, int]) -> Piece:
    """The rows that an adapter of one part changes: q, k, v or gate, up are the base's rows in the Hub's order.

    Args:
        place: of the adapter, of a part.
        pieces: of the module.
        rows: part -> rows of its B, of all parts of the module.

    Raises:
        MismatchError: they are not the module's.
    """
    order = next(parts for parts in PARTS if place.part in parts)
    first = sum(rows[part] for part in order[: order.index(place.part)])
    begin = 0
    alike = len(pieces) > 1 or len(set(rows.values())) == 1  # in one tensor they are thirds of it
    for piece in pieces:
        count = piece.weight.lengths[0]
        if begin <= first and first + rows[place.part] <= begin + count:
            name, offsets, lengths = piece.weight
            box = Box(name, (offsets[0] + first - begin, 0), (rows[place.part], lengths[1]))
            if alike and sum(rows.values()) == sum(p.weight.lengths[0] for p in pieces) and piece.expert is None:
                return Piece(piece.module, ((0, 0, rows[place.part]),), box)
        begin += count
    listed = ", ".join(f"{part} {count}" for part, count in rows.items())
    raise MismatchError(
        f"the adapters of {shown(place.module)} have other rows than its parts: {listed}",
        "The adapter belongs to another model, or the config does.",
    )


def copies_of(name: str, shape: Shape, piece: Piece, order: Sequence[Run], to: str) -> Iterator[Copy]:
    """B's rows, put where the module has them.

    Args:
        name, shape: of B.
        piece: whose rows.
        order: where B's rows are in the base's order.
        to: what the module's B is called.
    """
    lead: Shape = ()
    if len(shape) == 3:
        lead = (0 if shape[0] == 1 else piece.expert or 0,)
    one, rank = (1,) * len(lead), shape[-1]
    for row, at, count in piece.rows:
        for run in order:
            first, stop = max(row, run.row), min(row + count, run.row + run.rows)
            if first < stop:
                left = Box(name, (*lead, run.file + first - run.row, 0), (*one, stop - first, rank))
                yield Copy(left, Box(to, (at + first - row, 0), (stop - first, rank)))
