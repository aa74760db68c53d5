"""How tensor and expert parallelism cut a tensor: which boxes of it one rank's file holds, in which order.

Read and written from the same arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from math import gcd, lcm
from typing import NamedTuple

from ..errors import MismatchError, shown
from .spec import Shape


class Split(NamedTuple):
    """How one tensor is cut.

    Attributes:
        axis: the axis that is cut among the tensor-parallel ranks (for an expert, the expert-tensor-parallel ones);
            None: every rank has all of it.
        sections: relative sizes of the pieces that the axis holds one behind the other, GATED for [gate; up]; a rank
            has its part of each, one behind the other. (): the axis is a single piece.
        expert: axis 0 counts experts, which are dealt out among the expert-parallel ranks.
        tower: it belongs to a tower that may be cut by a tensor parallel size of its own.
    """

    axis: int | None = None
    sections: tuple[int, ...] = ()
    expert: bool = False
    tower: bool = False


REPLICATED = Split()

GATED = (1, 1)
"""Sections of a gated layer: gate and up."""


@dataclass(frozen=True, slots=True)
class Topology:
    """Megatron's parallel sizes.

    Attributes:
        tp, pp, ep: tensor, pipeline, expert model parallel size.
        vpp: model chunks per pipeline stage.
        etp: expert tensor parallel size.
        first, last: layers of the first and last pipeline stage, where they differ from the others.

    Raises:
        MismatchError: a size or number of layers that is no whole number from 1 on.
    """

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    ep: int = 1
    etp: int = 1
    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        sizes = {"tp": self.tp, "pp": self.pp, "vpp": self.vpp, "ep": self.ep, "etp": self.etp}
        ends = {name: n for name, n in (("first", self.first), ("last", self.last)) if n is not None}
        wrong = [f"{name} {n}" for name, n in (sizes | ends).items() if type(n) is not int or n < 1]
        if wrong:
            raise MismatchError(f"a topology has no {shown(wrong[0])}", "Give whole numbers from 1 on.")

    @property
    def period(self) -> int:
        """After so many ranks of a stage their coordinates come again."""
        return lcm(self.tp, self.etp * self.ep)

    def coordinates(self, number: int) -> tuple[int, int, int]:
        """The (tp, etp, ep) of a stage's rank of that number: dense layers deal tp first, experts etp and then ep."""
        return number % self.tp, number % self.etp, number // self.etp % self.ep

    def ranks(self) -> list[tuple[int, int]]:
        """The (tp, ep) ranks of one stage that a checkpoint has a file of: those that some global rank has."""
        return sorted({(tp, ep) for tp, _, ep in map(self.coordinates, range(self.period))})

    def expert_tensor_rank(self, tp: int) -> int:
        """The expert-tensor rank of a tensor rank; defined for ETP 1 and ETP = TP, whose file names tell it."""
        return 0 if self.etp == 1 else tp

    def layers(self, count: int) -> list[list[range]]:
        """Which layers each model chunk has: [stage][chunk] -> global numbers, counted chunk by chunk over all stages.

        Raises:
            MismatchError: they do not divide; says what would.
        """
        chunks = [[self._chunk(count, stage) for _ in range(self.vpp)] for stage in range(self.pp)]
        found: list[list[range]] = [[] for _ in range(self.pp)]
        at = 0
        for chunk in range(self.vpp):
            for stage in range(self.pp):
                found[stage].append(range(at, at + chunks[stage][chunk]))
                at += chunks[stage][chunk]
        return found

    def _chunk(self, count: int, stage: int) -> int:
        """Layers of one chunk of a stage."""
        fixed = {0: self.first, self.pp - 1: self.last}
        taken = sum(n for n in fixed.values() if n is not None)
        others = self.pp - sum(n is not None for n in fixed.values())
        if taken > count or (others == 0 and taken != count):
            raise MismatchError(f"first and last stage take {taken} of {count} layers", "Give other stage sizes.")
        if fixed.get(stage) is not None:
            return _divided(
                fixed[stage] or 0, self.vpp, f"{fixed[stage]} layers of pipeline stage {stage}", "virtual pipeline size"
            )
        each = _divided(count - taken, others, f"{count - taken} layers", "number of pipeline stages")
        return _divided(each, self.vpp, f"{each} layers per stage", "virtual pipeline size")


def _divided(amount: int, by: int, what: str, size: str) -> int:
    if amount % by:
        fitting = [str(n) for n in range(1, min(amount, 64) + 1) if amount % n == 0]
        raise MismatchError(f"{what} do not divide by the {size} {by}", f"Sizes that would do: {', '.join(fitting)}.")
    return amount // by


class Part(NamedTuple):
    """A box of the whole tensor, and where it begins in a rank's own tensor (along the cut axis)."""

    offsets: Shape
    lengths: Shape
    local: int


def parts(shape: Shape, split: Split, rank: int, ranks: int, name: str = "a tensor") -> Iterator[Part]:
    """The boxes of a tensor that one rank has, in the order of its own tensor; experts are not looked at.

    Args:
        shape: of the whole tensor (of one expert, for an expert's).
        split: how it is cut; `split.axis` counts axes of `shape`.
        rank, ranks: which of how many.
        name: of the tensor, for messages.

    Raises:
        MismatchError: the axis does not divide, into its sections or among the ranks.
    """
    if split.axis is None or ranks == 1:
        yield Part((0,) * len(shape), shape, 0)
        return
    first = local = 0
    what = f"{name} {list(shape)}"
    for rows in sections_of(shape[split.axis], split.sections, what):
        each = _divided(rows, ranks, f"{rows} rows or columns of {what}", "tensor parallel size")
        offsets, lengths = [0] * len(shape), list(shape)
        offsets[split.axis], lengths[split.axis] = first + rank * each, each
        yield Part(tuple(offsets), tuple(lengths), local)
        first, local = first + rows, local + each


def sections_of(length: int, sections: tuple[int, ...], what: str) -> tuple[int, ...]:
    """The sizes of an axis' sections.

    Args:
        length: of the axis.
        sections: how the sizes compare; (): there is one section.
        what: whose axis it is, for messages.

    Raises:
        MismatchError: an axis of that length has none that compare so.
    """
    if not sections:
        return (length,)
    total, common = sum(sections), gcd(*sections)
    if min(sections) < 1 or length % (total // common):
        raise MismatchError(
            f"{length} rows or columns of {what} do not come in sections of {', '.join(map(str, sections))}",
            "The reference config belongs to another model or size.",
        )
    return tuple(length // (total // common) * (size // common) for size in sections)


def begins(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Where each of several sections begins."""
    return tuple(accumulate(sizes, initial=0))[:-1]


def local_shape(shape: Shape, split: Split, ranks: int) -> Shape:
    """Shape of a rank's own tensor."""
    if split.axis is None:
        return shape
    return (*shape[: split.axis], shape[split.axis] // ranks, *shape[split.axis + 1 :])


def whole_shape(local: Shape, split: Split, ranks: int) -> Shape:
    """Shape of the whole tensor, from a rank's own."""
    if split.axis is None:
        return local
    return (*local[: split.axis], local[split.axis] * ranks, *local[split.axis + 1 :])
