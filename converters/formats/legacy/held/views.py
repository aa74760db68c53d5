"""Tensors of a torch.save file are views of its storages. Those of a model's weights share no byte with any other.

Many views of one storage are usual: of a flat buffer of parameters, or of the stack of all experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import gcd
from typing import NamedTuple

from ....errors import CorruptError, shown, shown_path
from ....tensors.dtypes import ITEMSIZE
from ....tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from ...pickles.closed_unpickler import TensorRef

MOST = 1_000_000
"""Pairs of views that are looked at in one storage: those whose ranges of bytes overlap, which hardly any do."""


class View(NamedTuple):
    """The bytes of a tensor in a storage: runs of equal length, repeated along steps.

    Attributes:
        name: of the tensor.
        weight: whether it is one of the model's weights.
        first, end: the range in which they all lie.
        run: bytes that lie together.
        steps: from one run to the next, in bytes, along each axis that has them.
    """

    name: str
    weight: bool
    first: int
    end: int
    run: int
    steps: tuple[int, ...]

    @property
    def whole(self) -> tuple[int, ...]:
        """The same for two tensors that are the same bytes."""
        return (self.first, self.end, self.run, *self.steps)


def view(name: str, weight: bool, ref: TensorRef) -> View:
    """The bytes that a tensor is; `weight`: see View."""
    size = ITEMSIZE.get(ref.dtype, 1)
    axes = sorted((step * size, n) for n, step in zip(ref.shape, ref.stride, strict=True) if n > 1 and step)
    first, steps = ref.offset * size, list[int]()
    end, run = first + size, size
    for step, n in axes:
        end += (n - 1) * step
        if step <= run and not steps:
            run += (n - 1) * step
        else:
            steps.append(step)
    return View(name, weight, first, end if all(ref.shape) else first, run, tuple(steps))


def check_apart(path: str, key: str, views: Iterable[View]) -> None:
    """Weights of a model share no byte with another tensor, but for the output layer of a tied one.

    Args:
        path: of the file.
        key: of the storage.
        views: all tensors in it.

    Raises:
        CorruptError: they may; names both.
    """
    for looked_at, (one, other) in enumerate(_meeting(views)):
        if looked_at >= MOST or (not _apart(one, other) and not _tied(one, other)):
            raise CorruptError(
                f"{shown_path(path)}: {shown(one.name)} and {shown(other.name)} are the same bytes, of storage "
                f"{shown(key)}",
                "data.pkl is damaged, or was changed: copy the file again from where it was saved.",
            )


def _meeting(views: Iterable[View]) -> Iterator[tuple[View, View]]:
    """Pairs whose ranges of bytes overlap, a weight among them."""
    weights: list[View] = []
    others: list[View] = []
    for new in sorted((v for v in views if v.end > v.first), key=lambda v: v.first):
        weights = [v for v in weights if v.end > new.first]
        yield from ((v, new) for v in weights)
        if new.weight:
            others = [v for v in others if v.end > new.first]
            yield from ((v, new) for v in others)
        (weights if new.weight else others).append(new)


def _apart(one: View, other: View) -> bool:
    """Whether two views are sure to share no byte, as two halves of the columns of one matrix do.

    All runs of both lie at multiples of one step, behind the first of each: apart there, they are apart everywhere.
    """
    step = gcd(*one.steps, *other.steps)
    if not step:  # two runs whose ranges overlap
        return False
    return (other.first - one.first) % step >= one.run and (one.first - other.first) % step >= other.run


def _tied(one: View, other: View) -> bool:
    """Whether they are an embedding and an output layer that is it; whether the model is tied, its config says."""
    ends = (one.name.endswith(EMBEDDING) and other.name.endswith(OUTPUT_LAYER)) or (
        one.name.endswith(OUTPUT_LAYER) and other.name.endswith(EMBEDDING)
    )
    return ends and one.weight and other.weight and one.whole == other.whole
