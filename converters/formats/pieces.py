"""Tensors that a file keeps in pieces of rows, a key each, put together. Their sizes are those of the pieces."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from ..errors import CorruptError, shown
from ..tensors.spec import TensorSpec
from .columns import ChunkColumns, Moved, joined, reaches_outside

DAMAGED = "The checkpoint is damaged, or of another model."
TWO_FORMS = "Two forms of one tensor are in the checkpoint, or it is damaged."


class Piece(NamedTuple):
    """A piece under its own key."""

    spec: TensorSpec
    chunks: ChunkColumns


class Pieces:
    """The pieces found so far, in whatever order they come."""

    def __init__(self) -> None:
        self._found: dict[str, dict[str, Piece]] = {}
        self._order: dict[str, Sequence[str]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, name: str, piece: str, order: Sequence[str], stored: Piece) -> None:
        """Take in a piece.

        Args:
            name: of the whole tensor.
            piece: which it is.
            order: all of the tensor's pieces, in the order of their rows.
            stored: the piece itself.

        Raises:
            CorruptError: the tensor has no such piece or has it already, the piece has no rows, does not fit the
                others, or has numbers that are not its own.
        """
        key, shape, dtype = stored.spec
        found = self._found.setdefault(name, {})
        if piece not in order:
            raise CorruptError(f"{shown(key)}: {shown(name)} has no such piece: {', '.join(order)} are all", DAMAGED)
        if piece in found:
            raise CorruptError(f"{shown(key)} and {shown(found[piece].spec.name)} are the same piece", TWO_FORMS)
        if not shape or not shape[0]:
            raise CorruptError(f"{shown(key)} {shown(list(shape))}: has no rows", DAMAGED)
        first = next(iter(found.values()), stored).spec
        if (first.shape[1:], first.dtype) != (shape[1:], dtype):
            raise CorruptError(
                f"{shown(key)}: {shown(list(shape))} {dtype} does not fit {shown(list(first.shape))} {first.dtype}, "
                f"another piece of {shown(name)}",
                DAMAGED,
            )
        if reaches_outside(stored.chunks, shape[0]):  # it would be another piece's
            raise CorruptError(f"{shown(key)}: a chunk reaches outside", DAMAGED)
        found[piece] = stored
        self._order[name] = order
        self._count += 1

    def joined(self, whole: Container[str]) -> Iterator[tuple[TensorSpec, ChunkColumns]]:
        """Every tensor that came in pieces, and its chunks.

        Args:
            whole: names of the tensors that came whole.

        Raises:
            CorruptError: a piece is missing, or the tensor is there whole, too.
        """
        for name, found in self._found.items():
            if name in whole:
                raise CorruptError(f"{shown(name)} is there whole and in pieces", TWO_FORMS)
            if missing := [piece for piece in self._order[name] if piece not in found]:
                raise CorruptError(f"{shown(name)}: lacks its pieces {', '.join(missing)}", DAMAGED)
            yield _joined(name, [found[piece] for piece in self._order[name]])


def _joined(name: str, pieces: Sequence[Piece]) -> tuple[TensorSpec, ChunkColumns]:
    firsts = [*accumulate((spec.shape[0] for spec, _ in pieces), initial=0)]
    first = pieces[0].spec
    parts = [Moved(listed, row) for (_, listed), row in zip(pieces, firsts[:-1], strict=True)]
    return TensorSpec(name, (firsts[-1], *first.shape[1:]), first.dtype), joined(parts)
