"""Rows of B whose order depends on the tensor parallel size that they were saved with: put into the base's order.

Some savers leave every rank's rows together, and what a rank has of several sections (gate and up; a Gated DeltaNet's
query, key and so on) then lies rank by rank. Megatron-Bridge cuts B of everything that is called linear_fc1 in halves,
as it does a gated base: of one that is not gated, and of an adapter of gate or up alone, the file then has the first
half of every rank's rows, and the second half of every rank's. The chunks show at which size that was.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..errors import UnsupportedError, shown
from ..tensors.sharding import GATED, Split, parts

SAVE_AGAIN = "Save the adapter at tensor parallel size 1, or merge it with the trainer."


class Run(NamedTuple):
    """Rows that lie together: so many from `file` on in the file belong from `row` on."""

    file: int
    row: int
    rows: int


class Shown(NamedTuple):
    """What chunks show of the ranks that wrote a tensor.

    Attributes:
        name: of the tensor.
        rows: how many it has.
        chunks: into how many equal runs of rows it is cut; 0: they are not equal.
        ranks: the parallel sizes that other tensors and the checkpoint's words show; 0: unequal chunks.
    """

    name: str
    rows: int
    chunks: int
    ranks: frozenset[int]

    def size(self, *each: int) -> int:
        """The parallel size at which it was saved.

        Args:
            each: chunks that a rank may have.

        Raises:
            UnsupportedError: it does not show.
        """
        if self.chunks == 1 and self.ranks <= {1}:
            return 1
        # Unequal chunks are 0: two tensors that have them agree about nothing.
        sizes = [size for size in self.ranks if size and self.chunks in [size * count for count in each]]
        if len(self.ranks) == 1 and sizes:
            return sizes[0]
        listed = " and ".join(map(str, sorted(self.ranks))) or "nothing"
        raise UnsupportedError(
            f"the order of the rows of {shown(self.name)} depends on the tensor parallel size that it was saved with, "
            f"and that does not show: it lies in {self.chunks or 'unequal'} chunks, and other tensors and the "
            f"checkpoint's own words say {listed}",
            SAVE_AGAIN,
        )


def in_halves(seen: Shown) -> list[Run]:
    """Rows of one section that may have been cut in halves on every rank."""
    ranks, rows = seen.size(1, 2), seen.rows
    if ranks == 1 or seen.chunks == ranks:
        return [Run(0, 0, rows)]
    half = rows // seen.chunks
    return [Run((h * ranks + r) * half, (2 * r + h) * half, half) for r in range(ranks) for h in (0, 1)]


def in_sections(seen: Shown, split: Split) -> list[Run]:
    """Rows of several sections, of which every rank has its part; `split`: how the base's are cut.

    Raises:
        MismatchError: they do not divide among the ranks.
    """
    halved = split.sections == GATED
    ranks, rows = seen.size(*((1, 2) if halved else (1,))), seen.rows
    if ranks == 1 or seen.chunks != ranks:  # two chunks for each rank are its parts of two sections, which stand apart
        return [Run(0, 0, rows)]
    each = rows // ranks
    return [
        Run(rank * each + part.local, part.offsets[0], part.lengths[0])
        for rank in range(ranks)
        for part in parts((rows,), split, rank, ranks, shown(seen.name))
    ]


def equal_runs(starts: Sequence[int], rows: int) -> int:
    """Into how many runs of one length these starts cut so many rows; 0: their lengths differ."""
    count = len(starts)
    if not 0 < count <= rows or rows % count:
        return 0
    return count if list(starts) == list(range(0, rows, rows // count)) else 0
