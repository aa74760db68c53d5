"""A layout's table, looked up tensor by tensor."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from operator import sub
from typing import NamedTuple

from ..errors import MismatchError, shown
from ..tensors.joined import Lookup
from ..tensors.rules import Copy, flipped, hulls
from ..tensors.spec import Box, Shape
from ..tensors.strided import runs
from .arrays import Assembly


class Found(NamedTuple):
    """A parameter of the table.

    Attributes:
        name: of the tensor in the table.
        expert: its number, where the parameter is one expert's; else None.
    """

    name: str
    expert: int | None = None


class Table:
    """A layout's table, mcore on the left, one spelling of Hugging Face on the right.

    Attributes:
        mcore, hf: shapes of whole tensors; of embedding and output layer without padding.
        less_one: names in the layout of tensors that hold the Hugging Face value minus one.
        of_mcore: finds the copies of an mcore tensor.
    """

    def __init__(self, copies: Sequence[Copy], less_one: frozenset[str]) -> None:
        self.mcore = hulls(copy.left for copy in copies)
        self.hf = hulls(copy.right for copy in copies)
        self.less_one = less_one
        self.of_mcore = Lookup(copies)
        self._to_hf: dict[Found, tuple[Assembly, ...]] = {}
        self._to_mcore: dict[Found, Assembly] = {}

    def shape(self, found: Found) -> Shape:
        """Shape of a parameter: of a whole tensor, or of one expert's."""
        whole = self.mcore[found.name]
        return whole if found.expert is None else whole[1:]

    def to_hf(self, found: Found) -> tuple[Assembly, ...]:
        """The Hugging Face tensors that are made of a parameter.

        Raises:
            MismatchError: one of them needs other parameters, too: all experts are one tensor there.
        """
        plan = self._to_hf.get(found)
        if plan is None:
            by_name: dict[str, list[Copy]] = {}
            for copy in self._copies(found):
                by_name.setdefault(copy.right.name, []).append(copy)
            plan = tuple(Assembly(name, self.hf[name], tuple(runs(copies))) for name, copies in by_name.items())
            for assembly in plan:
                self._check_whole(assembly, found)
            self._to_hf[found] = plan
        return plan

    def to_mcore(self, found: Found) -> Assembly:
        """A parameter, made of Hugging Face tensors."""
        plan = self._to_mcore.get(found)
        if plan is None:
            by_name: dict[str, list[Copy]] = {}
            for copy in flipped(self._copies(found)):
                by_name.setdefault(copy.left.name, []).append(copy)
            listed = tuple(run for copies in by_name.values() for run in runs(copies))
            plan = self._to_mcore[found] = Assembly(found.name, self.shape(found), listed)
        return plan

    def _copies(self, found: Found) -> Iterable[Copy]:
        """The copies of a parameter, their left boxes in the parameter's own axes."""
        shape = self.mcore[found.name]
        if found.expert is None:
            return self.of_mcore.meeting(Box(found.name, (0,) * len(shape), shape))
        box = Box(found.name, (found.expert, *(0 for _ in shape[1:])), (1, *shape[1:]))
        return (copy._replace(left=_inside(copy.left, box)) for copy in self.of_mcore.meeting(box))

    def _check_whole(self, assembly: Assembly, found: Found) -> None:
        have = sum(run.times * run.copy.right.size for run in assembly.runs)
        if have != prod(assembly.shape):
            raise MismatchError(
                f"{shown(found.name)}: expert {found.expert} is a part of {shown(assembly.name)}, which holds all",
                "Give all experts as one tensor, or make the model with experts='per-expert'.",
            )


def _inside(box: Box, expert: Box) -> Box:
    """A box within one expert, as the expert's own tensor has it: without the leading axis."""
    return Box(box.name, tuple(map(sub, box.offsets, expert.offsets))[1:], box.lengths[1:])
