"""Two Readers held against each other, element by element.

Windows of both are read side by side, by several threads; no more of a model than those is in memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import prod
from typing import TYPE_CHECKING, NamedTuple

from ...adapters.merged import Changed
from ...crew import Job, share
from ...ranks.accounts import Counted, count_in, counted
from ...ranks.forks import team_for
from ...ranks.team import Member
from ...report import Difference, Observer, Phase, tell_phase
from ...tensors.counting import Rounded
from ...tensors.dtypes import ITEMSIZE, storage
from ...tensors.spec import Box, Reader, TensorSpec, whole
from ...tensors.tiling import cut
from ..diagnosis.diagnosis import Diagnosis
from .elements import unlike

if TYPE_CHECKING:
    from ...tensors.spec import Array

WINDOW = 2 << 20
"""Bytes of a side that one thread reads at a time: few enough to be in cache still when they are compared."""

MATRIX = 12 << 20
"""Bytes of one of several stacked matrices, such as experts', that are read at a time all the same: a side may hold it
transposed, and would be read in short pieces for a part of it."""

BOXES = 256
"""Small tensors that one thread reads at a time."""


@dataclass(slots=True)
class Comparison:
    """What was compared, and what differs.

    Attributes:
        differences: by tensor.
        tensors, elements: how many were compared.
        names: of what was compared, and of what one side alone has; () where only their number is known.
        by_rule: tensors that are equal as the rule makes one side's of the other's -> what became of their elements.
        by_fp8_rule: the same of those that are FP8 on one side.
        merged: tensors that are equal as an adapter merged into one side's is the other's, likewise.
        diagnoses: what explains the differences.
    """

    differences: list[Difference]
    tensors: int
    elements: int
    names: Sequence[str] = ()
    by_rule: dict[str, Rounded] = field(default_factory=dict)
    by_fp8_rule: dict[str, Rounded] = field(default_factory=dict)
    merged: dict[str, Changed] = field(default_factory=dict)
    diagnoses: list[Diagnosis] = field(default_factory=list)


Work = Callable[[int, Observer, bool], Comparison]
"""A comparison that is ready to run: threads, who watches, and whether equal values are enough."""


def comparing(a: Reader, b: Reader, boxes: Iterable[Box] | None = None) -> Work:
    """`compare`, ready to run."""
    return lambda threads, observer, values: compare(a, b, threads, observer, boxes, values=values)


def in_turn(*works: Work) -> Work:
    """Several comparisons of the same tensors as one."""

    def run(threads: int, observer: Observer, values: bool) -> Comparison:
        found = [work(threads, observer, values) for work in works]
        return Comparison(
            [d for one in found for d in one.differences],
            found[0].tensors,
            sum(one.elements for one in found),
            [*found[0].names, *dict.fromkeys(d.tensor for one in found[1:] for d in one.differences)],
            {name: count for one in found for name, count in one.by_rule.items()},
            {name: count for one in found for name, count in one.by_fp8_rule.items()},
            {name: count for one in found for name, count in one.merged.items()},
            [diagnosis for one in found for diagnosis in one.diagnoses],
        )

    return run


def compare(
    a: Reader, b: Reader, threads: int, observer: Observer, boxes: Iterable[Box] | None = None, *, values: bool = False
) -> Comparison:
    """Compare every tensor of two readers.

    Args:
        a, b: the two sides, under the same names.
        threads: how many windows at a time.
        observer: told of the bytes.
        boxes: only these boxes, present on both sides; None: everything, and a name on one side only is a difference.
        values: different dtypes are no difference where the numbers are equal after exact widening.

    Raises:
        RuntimeError: not everything was compared, which would be a fault of ours.
    """
    differences = []
    if boxes is None:
        differences = [Difference(n, "only in A") for n in a.specs if n not in b.specs] + [
            Difference(n, "only in B") for n in b.specs if n not in a.specs
        ]
        boxes = [whole(a.specs[n]) for n in a.specs if n in b.specs]
    listed: list[Box] = []
    for box in boxes:
        left, right = a.specs[box.name], b.specs[box.name]
        if left.shape != right.shape and box == whole(left):
            differences.append(Difference(box.name, "shape", note=f"{list(left.shape)} and {list(right.shape)}"))
        else:
            listed.append(box)
    run = _Run(a, b)
    total = sum(map(run.nbytes, listed))
    tell_phase(observer, Phase.COMPARING)
    if team := team_for(total, threads):
        task = _Shared(a, b, listed, team.each(threads))
        team.run(task, partial(_take, run, a, b), lambda done: observer.progress(done, total))
    else:
        share(run.windows(listed), threads, lambda: observer.progress(run.done, total))
    if run.done != total:  # nothing may be called equal that nobody looked at
        raise RuntimeError(f"{run.done} of {total} bytes were compared")
    a.finish()
    b.finish()
    names = dict.fromkeys(d.tensor for d in differences)
    for name in dict.fromkeys(box.name for box in listed):
        names[name] = None
        differences += _told(run.found.get(name), a.specs[name], b.specs[name], values)
    return Comparison(differences, len(listed), sum(box.size for box in listed), list(names))


def _told(found: Difference | None, left: TensorSpec, right: TensorSpec, values: bool) -> Iterator[Difference]:
    """The difference of a tensor, if there is one."""
    if left.dtype == right.dtype:
        yield from [found] if found else []
    elif found or not values:
        told = found or Difference(left.name, "dtype")
        told.kind = "dtype"
        told.note = f"{left.dtype} and {right.dtype}, {'not equal' if found else 'equal'} after exact widening"
        yield told


class _Found(NamedTuple):
    """What a process has found in its share of a comparison."""

    differences: list[Difference]
    nbytes: int  # of the first side
    counted: Counted


@dataclass(frozen=True)
class _Shared:
    """What every process does of a comparison: a Task."""

    a: Reader
    b: Reader
    boxes: Sequence[Box]
    threads: int

    def __call__(self, member: Member) -> None:
        """See Task."""
        run = _Run(self.a, self.b)
        counted(member, self.a, self.b)  # and told nobody: a process that was forked has counts of the one it is of
        span = member.share.span(sum(map(run.wide, self.boxes)))
        share(run.windows(self.boxes, span), self.threads, lambda: member.progress(run.done))
        member.tell(_Found([*run.found.values()], run.done, counted(member, self.a, self.b)))


def _take(run: _Run, a: Reader, b: Reader, found: _Found) -> None:
    """Add what a process has found."""
    run.done += found.nbytes
    count_in(found.counted, a, b)
    for difference in found.differences:
        run.add(difference)


class _Run:
    """One comparison.

    Attributes:
        done: bytes of the first side that were compared.
        found: tensors in which elements differ.
    """

    def __init__(self, a: Reader, b: Reader) -> None:
        self._sides = a, b
        self._memory = _Memory(), _Memory()
        self._lock = threading.Lock()
        self.done = 0
        self.found: dict[str, Difference] = {}

    def nbytes(self, box: Box) -> int:
        """Of a box of the first side."""
        return box.size * ITEMSIZE[self._sides[0].specs[box.name].dtype]

    def wide(self, box: Box) -> int:
        """Bytes of a box of the side with the wider dtype."""
        return box.size * self._width(box)

    def windows(self, boxes: Iterable[Box], span: range | None = None) -> Iterator[Job]:
        """The comparison of boxes, cut and put together to windows.

        Args:
            boxes: to be compared.
            span: of the `wide` bytes of all of them; only what begins in it is compared. None: everything is.
        """
        held: list[Box] = []
        room = WINDOW
        for part in self._parts(boxes, span):
            nbytes = self.nbytes(part)
            if held and (nbytes > room or len(held) == BOXES):
                yield partial(self._window, held)
                held, room = [], WINDOW
            held.append(part)
            room -= nbytes
        if held:
            yield partial(self._window, held)

    def _parts(self, boxes: Iterable[Box], span: range | None) -> Iterator[Box]:
        begin = 0
        for box in boxes:
            end = begin + self.wide(box)
            if span is None or (begin < span.stop and span.start < end):
                yield from (part for part, at in self._cut(box, begin) if span is None or at in span)
            begin = end

    def _cut(self, box: Box, begin: int) -> Iterator[tuple[Box, int]]:
        width = self._width(box)
        matrix = width * prod(box.lengths[-2:]) if len(box.lengths) > 2 else 0
        return cut(box, begin, width, max(WINDOW, min(matrix, MATRIX)))

    def _width(self, box: Box) -> int:
        return max(ITEMSIZE[side.specs[box.name].dtype] for side in self._sides)

    def _window(self, boxes: list[Box]) -> None:
        for box in boxes:
            self._compare(box)
        with self._lock:
            self.done += sum(map(self.nbytes, boxes))

    def _compare(self, box: Box) -> None:
        import numpy as np

        left, right = (memory.read(side, box) for memory, side in zip(self._memory, self._sides, strict=True))
        a, b = (side.specs[box.name].dtype for side in self._sides)
        for found in unlike(left, right, (a, b)):
            inside = np.unravel_index(found.first, box.lengths)
            first = tuple(int(i) + o for i, o in zip(inside, box.offsets, strict=True))
            self.add(Difference(box.name, "values", found.elements, first, found.largest, nan=found.nan))

    def add(self, more: Difference) -> None:
        """Put what was found in a part of a tensor to what is known of it."""
        with self._lock:
            known = self.found.setdefault(more.tensor, more)
            if known is not more:
                known.count += more.count
                known.nan += more.nan
                known.first = min(known.first, more.first)
                known.max_abs = max((one for one in (known.max_abs, more.max_abs) if one is not None), default=None)


class _Memory(threading.local):
    """Where a thread reads elements to, again and again: memory that was never used before is dear."""

    def __init__(self) -> None:
        self._held: Array | None = None

    def read(self, reader: Reader, box: Box) -> Array:
        """The bits of a box, in row-major order; until the next box is read."""
        import numpy as np

        dtype = reader.specs[box.name].dtype
        nbytes = box.size * ITEMSIZE[dtype]
        if self._held is None or len(self._held) < nbytes:
            self._held = np.empty(max(nbytes, WINDOW), np.uint8)
        bits = self._held[:nbytes].view(storage(dtype))
        reader.read_into(box, bits.reshape(box.lengths))
        return bits
