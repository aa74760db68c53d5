"""A known way in which a tool writes good numbers in wrong places: a permutation, as equal boxes like every rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from ...models.shared.config import ModelConfig
from ...tensors.mapped import Mapped
from ...tensors.reshaped import Reshaped
from ...tensors.rules import Copy, flipped, transposed
from ...tensors.spec import Box, Reader, Shape


class Group(NamedTuple):
    """Tensors whose numbers change places among themselves: q_proj, k_proj and v_proj of one layer.

    Attributes:
        names: of the tensors, on the Hub.
        build: copies of all their elements: left the good tensors, right what the tool wrote.
        turned: [E, rows, columns] of the one tensor whose matrices were reshaped where they should have been
            transposed: read so, as the copies are a few elements each; (): the copies are read.
    """

    names: tuple[str, ...]
    build: Callable[[], list[Copy]]
    turned: Shape = ()

    def made(self, good: Reader) -> Reader:
        """What the tool wrote, of the good tensors."""
        if not self.turned:
            return Mapped(good, self.build())
        (name,) = self.names
        return Reshaped(Mapped(good, list(transposed(name, name, self.turned))), {name: self.turned})

    def undone(self, written: Reader) -> Reader:
        """The good tensors, of what the tool wrote."""
        if not self.turned:
            return Mapped(written, flipped(self.build()))
        (name,), (experts, rows, columns) = self.names, self.turned
        flat = (experts, columns, rows)
        return Mapped(Reshaped(written, {name: flat}), list(transposed(name, name, flat)))

    def moves_as(self, other: Group) -> bool:
        """Whether both are one permutation, of the same tensors; a reshaping is no move of rows, whatever its sizes."""
        if self.turned or other.turned:
            return self.turned == other.turned
        return normal(self.build()) == normal(other.build())


class Fault(NamedTuple):
    """One permutation, wherever in a model it may have happened.

    Attributes:
        name: what `repair --undo` takes.
        says: what went wrong, in one line.
        groups: the model's integers -> where it may have happened.
        known_of: whose it was where it was reported; "": of nobody.
    """

    name: str
    says: str
    groups: Callable[[ModelConfig], Iterator[Group]]
    known_of: str = ""


def normal(copies: Sequence[Copy]) -> list[Copy]:
    """The same copies with those put together that go on where another ends: equal for equal permutations of rows."""
    merged: list[Copy] = []
    for copy in sorted(copies, key=lambda c: (c.right.name, c.right.offsets)):
        if merged and _goes_on(merged[-1], copy):
            last = merged.pop()
            copy = Copy(_longer(last.left, copy.left), _longer(last.right, copy.right))
        merged.append(copy)
    return merged


def _longer(box: Box, more: Box) -> Box:
    return box._replace(lengths=(box.lengths[0] + more.lengths[0], *box.lengths[1:]))


def _goes_on(first: Copy, second: Copy) -> bool:
    """Whether one goes on, on both sides, where the other ends."""
    if first.transpose or second.transpose:
        return False
    return _follows(first.left, second.left) and _follows(first.right, second.right)


def _follows(box: Box, other: Box) -> bool:
    end = (box.offsets[0] + box.lengths[0], *box.offsets[1:])
    return (box.name, end, box.lengths[1:]) == (other.name, other.offsets, other.lengths[1:])
