"""Copies become a Reader of the other side, after the proof that they cover every element exactly once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ..errors import MismatchError, shown
from .rules import Copy, Table, counterpart, hulls
from .spec import Box, Reader, Shape, TensorSpec
from .tiling import BoxIndex, part, tiling_fault

if TYPE_CHECKING:
    from .spec import Array


def prove(table: Table) -> None:
    """Every element of every tensor, on both sides, is in exactly one box (padding counts on the left).

    Raises:
        MismatchError: naming the tensor; a fault of the table for this config, not of the checkpoint.
    """
    _prove_side([*(c.left for c in table.copies), *table.pads], table.left())
    _prove_side([c.right for c in table.copies], table.right())


def _prove_side(boxes: Iterable[Box], shapes: Mapping[str, Shape]) -> None:
    grouped: dict[str, list[tuple[Shape, Shape]]] = {}
    for name, offsets, lengths in boxes:
        grouped.setdefault(name, []).append((offsets, lengths))
    for name, listed in grouped.items():
        fault = tiling_fault(shapes[name], listed)
        if fault:
            raise MismatchError(
                f"the mapping's boxes of {shown(name)} {fault}",
                "The config does not describe a model of this family; nothing was written.",
            )


def check_names(have: Mapping[str, TensorSpec], want: Mapping[str, Shape], side: str) -> None:
    """The names are the expected ones: none missing, none left over.

    Args:
        have: what the file holds.
        want: what layout and config enumerate.
        side: how to call the file in the message.

    Raises:
        MismatchError: with the first few names and, for each, its three nearest counterparts.
    """
    missing = sorted(want.keys() - have.keys())
    surplus = sorted(have.keys() - want.keys())
    if not missing and not surplus:
        return
    lines = []
    for what, names, others in (("missing", missing, surplus or have), ("not expected", surplus, missing or want)):
        if names:
            lines.append(f"{len(names)} {what}:")
            lines += [f"  {shown(n)}{nearest(n, others)}" for n in names[:3]]
            lines += [f"  … and {len(names) - 3} more"] * (len(names) > 3)
    raise MismatchError(
        f"{side}: the tensor names are not those of this model\n" + "\n".join(lines),
        "Is the reference config that of this model, and the layout right?",
    )


def nearest(name: str, others: Iterable[str]) -> str:
    """The three names most like one, in words; "" where none is."""
    # Bounded: comparing against a hostile list of a million long names must not take minutes.
    found = get_close_matches(name[:300], [o for o in others if len(o) < 300][:5000], n=3, cutoff=0.6)
    return f"  (nearest: {', '.join(shown(f) for f in found)})" if found else ""


class Mapped:
    """A Reader of the right-hand names, over a reader of the left-hand ones.

    Args:
        reader: holds every left tensor of `copies`.
        copies: cover each right tensor exactly once (see `prove`).
        fills: boxes of right tensors that no copy fills; they read as zeros.

    Raises:
        MismatchError: parts of one right tensor have different dtypes.
    """

    def __init__(self, reader: Reader, copies: Sequence[Copy], fills: Sequence[Box] = ()) -> None:
        self._reader = reader
        self._fills: dict[str, list[Box]] = {}
        self._copies: dict[str, list[Copy]] = {}
        self._index: dict[str, BoxIndex] = {}
        for box in fills:
            self._fills.setdefault(box.name, []).append(box)
        for copy in copies:
            self._copies.setdefault(copy.right.name, []).append(copy)
        shapes = hulls([*(copy.right for copy in copies), *fills])
        self.specs: dict[str, TensorSpec] = {
            name: TensorSpec(name, shapes[name], self._dtype(name, parts)) for name, parts in self._copies.items()
        }

    def _dtype(self, name: str, parts: Sequence[Copy]) -> str:
        specs = self._reader.specs
        by_dtype = {specs[copy.left.name].dtype: copy.left.name for copy in parts}
        if len(by_dtype) > 1:
            listed = ", ".join(f"{shown(n)} is {d}" for d, n in by_dtype.items())
            raise MismatchError(
                f"{shown(name)} would be made of parts with different dtypes: {listed}",
                "Give --dtype to make them one.",
            )
        (dtype,) = by_dtype
        return dtype

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        if box.name in self._fills:
            out[...] = 0
        index = self._index.get(box.name)
        copies = self._copies[box.name]
        if index is None:
            index = self._index[box.name] = BoxIndex([(c.right.offsets, c.right.lengths) for c in copies])
        for at, offsets, lengths in index.overlapping(box.offsets, box.lengths):
            self._reader.read_into(*_across(copies[at], offsets, lengths, part(out, box, offsets, lengths)))

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()


def _across(copy: Copy, offsets: Shape, lengths: Shape, view: Array) -> tuple[Box, Array]:
    """The left box of a sub-box of a copy's right box, and the view of the output in the left one's axes."""
    box = counterpart(copy, offsets, lengths)
    if copy.transpose:
        view = view.swapaxes(-1, -2)
    while view.ndim > len(box.lengths):
        view = view[0]
    while view.ndim < len(box.lengths):
        view = view[None]
    return box, view


class Renamed:
    """A Reader with other names for the same tensors.

    Args:
        reader: the one below.
        names: new name -> its name below; tensors not named are gone.
    """

    def __init__(self, reader: Reader, names: Mapping[str, str]) -> None:
        self._reader = reader
        self._names = names
        self.specs: dict[str, TensorSpec] = {
            new: reader.specs[old] if new == old else reader.specs[old]._replace(name=new) for new, old in names.items()
        }

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        self._reader.read_into(box._replace(name=self._names[box.name]), out)

    @property
    def below(self) -> tuple[Reader, ...]:
        """See Reader."""
        return (self._reader,)

    def finish(self) -> None:
        """See Reader."""
        self._reader.finish()
