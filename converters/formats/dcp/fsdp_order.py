"""Rows as Megatron-FSDP saves them: those of each tensor-parallel rank, one rank behind the other.

Where a rank has rows of several sections, a Gated DeltaNet's query, key, value and so on, those of a section lie apart.

With `--swiglu` every `mlp.linear_fc1` is split in `_w` and `_v` on each rank. A gated fc1 becomes gate and up, which
need no order. One that is not gated, a Qwen3-VL vision block's, becomes the first half of every rank's rows, and the
second half of every rank's rows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...errors import UnsupportedError, shown
from ...tensors.sharding import GATED, Split, begins, sections_of
from ...tensors.spec import TensorSpec
from ..chunks import Chunk, row_major

MOST_RANKS = 1 << 10
"""No tensor parallel size is larger. Chunks are cut at every rank's rows, so their number is bounded before."""


class Order(NamedTuple):
    """How the rows of a tensor lie in a file: `blocks` of so many rows, again and again for each of `ranks` ranks.

    Attributes:
        blocks: rows of one rank's part of each section, in order.
        ranks: how many.
        outer: the sections come one behind the other in the file, each with all ranks' parts, and belong side by side
            for each rank; else the other way round.
    """

    blocks: tuple[int, ...]
    ranks: int
    outer: bool

    def place(self, row: int) -> tuple[int, int]:
        """Where a row of the file belongs, and how many rows from it on lie together."""
        if self.outer:
            number, inside = divmod(row, self.blocks[0])
            section, rank = divmod(number, self.ranks)
            return (rank * len(self.blocks) + section) * self.blocks[0] + inside, self.blocks[0] - inside
        rank, inside = divmod(row, sum(self.blocks))
        firsts = begins(self.blocks)
        section = bisect_right(firsts, inside) - 1
        inside -= firsts[section]
        rows = self.blocks[section]
        return firsts[section] * self.ranks + rank * rows + inside, rows - inside


def in_order(
    specs: Mapping[str, TensorSpec],
    chunks: Mapping[str, Sequence[Chunk]],
    halved: Container[str],
    pieces: Container[str],
    splits: Mapping[str, Split],
    stated: Callable[[], object],
) -> dict[str, Sequence[Chunk]]:
    """The chunks of every tensor, put where they belong.

    Args:
        specs: every tensor.
        chunks: of each; a halved one's as if it were [w; v].
        halved: names of those that came in halves.
        pieces: names of those whose sections came as pieces of their own.
        splits: how tensor parallelism cuts each.
        stated: reads the checkpoint's tensor parallel size, if it states one.

    Raises:
        UnsupportedError: it states none, or one that cannot be.
        MismatchError: a tensor has other rows than its sections.
    """
    found = dict(chunks)
    for name, split in splits.items():
        gated = split.sections == GATED
        if split.axis != 0 or split.expert or name in pieces or (gated if name in halved else not split.sections):
            continue
        shape = specs[name].shape
        relative = GATED if name in halved else split.sections
        sizes = sections_of(shape[0] if shape else 0, relative, f"{shown(name)} {shown(list(shape))}")
        order = _order(specs[name], sizes, name in halved, stated())
        found[name] = [piece for chunk in chunks[name] for piece in _placed(chunk, order)]
    return found


def _order(spec: TensorSpec, sizes: tuple[int, ...], halved: bool, ranks: object) -> Order:
    if type(ranks) is not int or not 0 < ranks <= MOST_RANKS or any(rows % ranks for rows in sizes):
        several = f"as rows of {len(sizes)} sections, one tensor-parallel rank's behind the other's"
        how = "in two halves of each tensor-parallel rank's part" if halved else several
        raise UnsupportedError(
            f"{shown(spec.name)} {shown(list(spec.shape))} is saved {how}, and the checkpoint's args state "
            f"tensor_model_parallel_size {shown(ranks)}",
            "Save the checkpoint as torch_dist.",
        )
    return Order(tuple(rows // ranks for rows in sizes), ranks, outer=halved)


def _placed(chunk: Chunk, order: Order) -> Iterator[Chunk]:
    """A chunk cut at the blocks, each part put where it belongs."""
    start, strides = chunk.offsets[0], chunk.strides or row_major(chunk.lengths)
    at, stop = start, start + chunk.lengths[0]
    while at < stop:
        row, together = order.place(at)
        count = min(stop - at, together)
        first = chunk.start + (at - start) * strides[0]
        yield Chunk((row, *chunk.offsets[1:]), (count, *chunk.lengths[1:]), chunk.item, first, strides)
        at += count
