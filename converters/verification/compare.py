"""Two Readers held against each other, element by element. Equality is of bits.

NaN equals the same NaN, -0 differs from +0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..report import Difference, Observer
from ..tensors.dtypes import ITEMSIZE, largest_difference, storage, widen
from ..tensors.offset import Rounded
from ..tensors.spec import Box, Reader, TensorSpec, whole
from ..tensors.tiling import WINDOW, cut

if TYPE_CHECKING:
    from ..tensors.spec import Array


@dataclass(slots=True)
class Comparison:
    """What was compared, and what differs.

    Attributes:
        differences: by tensor.
        tensors, elements: how many were compared.
        by_rule: tensors that are equal as the rule makes one side's of the other's -> what became of their elements.
    """

    differences: list[Difference]
    tensors: int
    elements: int
    by_rule: dict[str, Rounded] = field(default_factory=dict)


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
            {name: count for one in found for name, count in one.by_rule.items()},
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
    """
    differences = []
    if boxes is None:
        differences = [Difference(n, "only in A") for n in a.specs if n not in b.specs] + [
            Difference(n, "only in B") for n in b.specs if n not in a.specs
        ]
        boxes = [whole(a.specs[n]) for n in a.specs if n in b.specs]
    listed: list[Box] = []
    found: dict[str, Difference] = {}
    for box in boxes:
        left, right = a.specs[box.name], b.specs[box.name]
        if left.shape != right.shape and box == whole(left):
            differences.append(Difference(box.name, "shape", note=f"{list(left.shape)} and {list(right.shape)}"))
        else:
            listed.append(box)
            found.setdefault(box.name, Difference(box.name, "dtype" if left.dtype != right.dtype else "values"))
    total = sum(box.size * _width(a, box) for box in listed)
    done = 0
    with ThreadPoolExecutor(max_workers=threads) as pool:
        jobs = [part for box in listed for part, _ in cut(box, 0, _width(a, box), WINDOW // 2)]
        try:
            for job, outcome in zip(jobs, pool.map(lambda part: _window(a, b, part), jobs), strict=True):
                _merge(found[job.name], outcome)
                done += job.size * _width(a, job)
                observer.progress(done, total)
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    a.finish()
    b.finish()
    differences += [d for name, d in found.items() if _stands(d, a.specs[name], b.specs[name], values)]
    return Comparison(differences, len(listed), sum(box.size for box in listed))


def _width(a: Reader, box: Box) -> int:
    return ITEMSIZE[a.specs[box.name].dtype]


def _stands(d: Difference, left: TensorSpec, right: TensorSpec, values: bool) -> bool:
    if d.kind == "dtype":
        d.note = f"{left.dtype} and {right.dtype}, {'not equal' if d.count else 'equal'} after exact widening"
        return bool(d.count) or not values
    return bool(d.count)


def _window(a: Reader, b: Reader, box: Box) -> Difference | None:
    """The differences within one box; None for none."""
    left, right = _read(a, box), _read(b, box)
    types = a.specs[box.name].dtype, b.specs[box.name].dtype
    if types[0] == types[1]:
        unequal = left != right
        if not unequal.any():
            return None
    else:
        wide = "float32" if "float64" not in types else "float64"
        left, right = widen(left, types[0], wide), widen(right, types[1], wide)
        types = (wide, wide)
        unequal = left.view(storage(wide)) != right.view(storage(wide))
        if not unequal.any():
            return None
    return _describe(box, left, right, unequal, types)


def _describe(box: Box, left: Array, right: Array, unequal: Array, types: tuple[str, str]) -> Difference:
    import numpy as np

    first = np.unravel_index(int(unequal.argmax()), unequal.shape)
    largest = largest_difference(left[unequal], right[unequal], types[0])
    return Difference(
        box.name,
        "values",
        int(unequal.sum()),
        tuple(int(i) + o for i, o in zip(first, box.offsets, strict=True)),
        largest,
    )


def _merge(into: Difference, more: Difference | None) -> None:
    if more is None:
        return
    into.first = into.first if into.count else more.first
    into.count += more.count
    if more.max_abs is not None:
        into.max_abs = max(into.max_abs or 0.0, more.max_abs)


def _read(reader: Reader, box: Box) -> Array:
    import numpy as np

    out = np.empty(box.lengths, dtype=storage(reader.specs[box.name].dtype))
    reader.read_into(box, out)
    return out
