"""One lora_A and one lora_B of several pairs that change parts of one matrix, as equal boxes.

With one A for all parts B's rows lie below each other. With different ones A's lie below each other, and B is zero but
for a block of each: the rank is that of all parts together, and alpha grows with it, so that the scale stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ...errors import UnsupportedError, shown
from ...tensors.rules import Copy
from ...tensors.spec import Box, Reader
from ..adapter import Pair
from ..equal import equal_bits
from .targets import Part, Target


class Factors(NamedTuple):
    """lora_A [rank, in] and lora_B [out, rank] of a target; with E experts A is [E * rank, in] and B [E, out, rank].

    Attributes:
        target: what they change.
        rank, alpha: of all of it.
        copies: A and B of the pairs (left) in them (right).
        fills: all of a matrix that the copies do not fill; the rest is zero.
    """

    target: Target
    rank: int
    alpha: float
    copies: list[Copy]
    fills: list[Box]

    @property
    def a(self) -> str:
        """The name of A."""
        return f"base_model.model.{self.target.module}.lora_A.weight"

    @property
    def b(self) -> str:
        """The name of B."""
        return f"base_model.model.{self.target.module}.lora_B.weight"


def factors(target: Target, reader: Reader) -> Factors:
    """A and B of a target.

    Args:
        target: with its parts.
        reader: of the pairs' tensors, some of which are compared.

    Raises:
        UnsupportedError: its parts are scaled differently.
    """
    widths = _widths(target)
    shared = len(widths) == 1 or _one_a(target, reader)
    columns = [0] * len(widths) if shared else [sum(widths[:slot]) for slot in range(len(widths))]
    rank = max(widths) if shared else sum(widths)
    found = Factors(target, rank, _alpha(target, rank), [], [])
    found.copies.extend(_of_a(found, columns, shared=shared))
    found.copies.extend(_of_b(found, columns))
    found.fills.extend(_unfilled(found))
    return found


def _widths(target: Target) -> list[int]:
    """The rank of each slot: of what has experts, the largest of any."""
    slots = max(part.slot for part in target.parts) + 1
    return [max((p.pair.rank for p in target.parts if p.slot == slot), default=0) for slot in range(slots)]


def _one_a(target: Target, reader: Reader) -> bool:
    """Whether the parts of each matrix have one A."""
    first: dict[int, Pair] = {}
    for part in target.parts:
        known = first.setdefault(part.expert, part.pair)
        if not equal_bits(reader, known.a, part.pair.a):
            return False
    return True


def _alpha(target: Target, rank: int) -> float:
    """What divided by the rank is the scale of every part, exactly."""
    pair = target.parts[0].pair
    others = next((part.pair for part in target.parts if part.pair.scale != pair.scale), None)
    if others:
        raise UnsupportedError(
            f"{shown(pair.module)} and {shown(others.module)} are scaled by {shown(pair.scale)} and "
            f"{shown(others.scale)}, and peft has one alpha for both",
            "Merge the adapter instead: leave --adapter out, and give --base.",
        )
    alpha = pair.alpha if rank == pair.rank else pair.alpha * rank / pair.rank
    if alpha / rank != pair.scale:
        raise UnsupportedError(
            f"{shown(pair.module)}: no alpha over the rank {rank} is its scale {shown(pair.scale)}",
            "Merge the adapter instead: leave --adapter out, and give --base.",
        )
    return alpha


def _of_a(found: Factors, columns: list[int], *, shared: bool) -> Iterator[Copy]:
    done: set[int] = set()
    for expert, first, part in _placed(found, columns):
        if not (shared and expert in done):
            done.add(expert)
            rank, width = part.pair.rank, found.target.shape[1]
            right = Box(found.a, (expert * found.rank + first, 0), (rank, width))
            yield Copy(Box(part.pair.a, (0, 0), (rank, width)), right)


def _of_b(found: Factors, columns: list[int]) -> Iterator[Copy]:
    for expert, first, part in _placed(found, columns):
        rows = _rows(part, found.target)
        left, at = Box(part.pair.b, (0, 0), (rows, part.pair.rank)), (part.row, first)
        if found.target.experts:
            yield Copy(left, Box(found.b, (expert, *at), (1, *left.lengths)))
        else:
            yield Copy(left, Box(found.b, at, left.lengths))


def _placed(found: Factors, columns: list[int]) -> Iterator[tuple[int, int, Part]]:
    for part in found.target.parts:
        yield part.expert, columns[part.slot], part


def _rows(part: Part, target: Target) -> int:
    """Rows of a pair's B: those of its box on the Hub, as [out, in]."""
    lengths = part.pair.weight.lengths
    return lengths[-1] if part.pair.transpose else lengths[-2]


def _unfilled(found: Factors) -> Iterator[Box]:
    """A or B, all of it, where its copies leave something out."""
    target, experts = found.target, found.target.experts
    a = (max(experts, 1) * found.rank, target.shape[1])
    b = (*([experts] if experts else []), target.shape[0], found.rank)
    for box in (Box(found.a, (0, 0), a), Box(found.b, (0,) * len(b), b)):
        if sum(copy.right.size for copy in found.copies if copy.right.name == box.name) < box.size:
            yield box
