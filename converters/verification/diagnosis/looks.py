"""How a tensor differs that no known fault explains: by how much, where, and whether it is like the other at all."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, NamedTuple

from ...report import Difference
from ...tensors.spec import Reader
from .elsewhere import SHARDS, moved_rows, rows
from .permuted import TRAINED
from .sample import Likeness, bits, likeness, sampled, windows

if TYPE_CHECKING:
    from ...tensors.spec import Array

UNRELATED = 0.1
"""Correlation below which numbers have nothing to do with each other."""

FEW = 0.01
"""Part of the elements that are a few."""


class Look(NamedTuple):
    """How a tensor differs.

    Attributes:
        kind: "trained", "few", "block", "moved", "unrelated", "other".
        says: about this tensor; "" where the kind says it all.
        likeness: of a sample.
    """

    kind: str
    says: str
    likeness: Likeness


KINDS = {
    "trained": "all numbers are a little off, as training leaves them",
    "few": "a few numbers are others",
    "block": "one block of rows or columns is other numbers",
    "moved": "rows are in other places",
    "unrelated": "the numbers have nothing to do with A's: noise, or another tensor",
    "other": "the numbers are far from A's, and yet not unlike them",
}
"""What is said of all tensors of a kind."""


def look(a: Reader, b: Reader, difference: Difference) -> Look:
    """How the tensor of a difference differs."""
    name = difference.tensor
    spec = a.specs[name]
    found, size = likeness(a, b, sampled(spec)), prod(spec.shape)
    if difference.count < 0.95 * size and len(spec.shape) > 1 and (said := _block(a, b, difference)):
        return Look("block", said, found)
    if difference.count < FEW * size:
        return Look("few", "", found)
    if found.relative < TRAINED:
        return Look("trained", "", found)
    if len(spec.shape) > 1 and (said := moved_rows(rows(a, b, name))):
        return Look("moved", said, found)
    if abs(found.correlation) < UNRELATED and size >= 64:
        return Look("unrelated", "", found)
    return Look("other", "", found)


def _block(a: Reader, b: Reader, difference: Difference) -> str:
    """Whether rows, or columns, that stand together alone differ, in words; "" where they do not."""
    import numpy as np

    name, shape = difference.tensor, a.specs[difference.tensor].shape
    across, along = np.zeros(shape[0], bool), np.zeros(shape[-1], bool)
    for box in windows(a.specs[name]):
        unlike = bits(a, box) != bits(b, box)
        across[box.offsets[0] : box.offsets[0] + box.lengths[0]] |= unlike.reshape(box.lengths[0], -1).any(axis=1)
        along[box.offsets[-1] : box.offsets[-1] + box.lengths[-1]] |= unlike.reshape(-1, box.lengths[-1]).any(axis=0)
    return _run(across, "rows", difference.count, prod(shape[1:])) or _run(
        along, "columns", difference.count, prod(shape[:-1])
    )


def _run(wrong: Array, what: str, count: int, each: int) -> str:
    import numpy as np

    where, total = np.flatnonzero(wrong), len(wrong)
    first, last = int(where[0]), int(where[-1])
    span = last - first + 1
    if span == total or span < 2 or count < 0.5 * span * each:
        return ""
    said = f"{what} {first} to {last} of {total} alone differ"
    for parts in SHARDS:
        shard = total // parts
        if total % parts == 0 and first // shard == last // shard and span > shard // 2:
            return f"{said}, the part of tensor-parallel rank {first // shard} of {parts}, as if of another iteration"
    return said
