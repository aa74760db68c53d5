"""How a tensor differs that no known fault explains: by how much, where, and whether it is like the other at all."""

from __future__ import annotations

from math import prod
from typing import NamedTuple

from ...report import Difference
from ...tensors.spec import Reader
from .blocks import block
from .elsewhere import moved_rows, rows
from .permuted import TRAINED
from .sample import Likeness, likeness, sampled

UNRELATED = 0.1
"""Correlation below which numbers have nothing to do with each other."""

FEW = 0.01
"""Part of the elements that are a few."""


class Look(NamedTuple):
    """How a tensor differs.

    Attributes:
        kind: "trained", "few", "block", "nan", "moved", "unrelated", "other".
        says: about this tensor; "" where the kind says it all.
        likeness: of a sample.
        rank: whose part a block is; "" where it is none's.
    """

    kind: str
    says: str
    likeness: Likeness
    rank: str = ""


KINDS = {
    "trained": "all numbers are a little off, as training leaves them",
    "few": "a few numbers are others",
    "block": "one block of rows, columns or experts is other numbers",
    "nan": "most of what differs is NaN on one side",
    "moved": "rows are in other places",
    "unrelated": "the numbers have nothing to do with A's: noise, or another tensor",
    "other": "the numbers are far from A's, and yet not unlike them",
}
"""What is said of all tensors of a kind."""

WHOLE = ("trained", "unrelated", "other")
"""Kinds of which nearly every number of a tensor differs."""


def look(a: Reader, b: Reader, difference: Difference) -> Look:
    """How the tensor of a difference differs."""
    name = difference.tensor
    spec = a.specs[name]
    found, size = likeness(a, b, sampled(spec)), prod(spec.shape)
    if difference.count < 0.95 * size and len(spec.shape) > 1 and (part := block(a, b, difference)):
        return Look("block", part.says, found, part.rank)
    if difference.nan * 2 > difference.count:
        return Look("nan", "", found)
    if difference.count < FEW * size:
        return Look("few", "", found)
    if found.relative < TRAINED:
        return Look("trained", "", found)
    if len(spec.shape) > 1 and (said := moved_rows(rows(a, b, name))):
        return Look("moved", said, found)
    if abs(found.correlation) < UNRELATED and size >= 64:
        return Look("unrelated", "", found)
    return Look("other", "", found)
