"""Arithmetic of boxes and ranks against numpy, which marks elements one by one."""

from __future__ import annotations

from math import prod

import numpy as np
from hypothesis import strategies as some
from properties import holds

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.sharding import Split, Topology, local_shape, parts, whole_shape
from vlconv.converters.tensors.spec import Box
from vlconv.converters.tensors.tiling import BoxIndex, cut, tiling_fault

Boxes = list[tuple[tuple[int, ...], tuple[int, ...]]]
SHAPES = some.lists(some.integers(1, 5), max_size=4).map(tuple)


@some.composite
def tilings(draw: some.DrawFn) -> tuple[tuple[int, ...], Boxes]:
    """A shape and boxes that tile it: it is cut in two again and again."""
    shape = draw(SHAPES)
    boxes: Boxes = [((0,) * len(shape), shape)]
    for _ in range(draw(some.integers(0, 8))):
        at = draw(some.integers(0, len(boxes) - 1))
        offsets, lengths = boxes[at]
        wide = [axis for axis, n in enumerate(lengths) if n > 1]
        if wide:
            axis = draw(some.sampled_from(wide))
            first = draw(some.integers(1, lengths[axis] - 1))
            second = (*offsets[:axis], offsets[axis] + first, *offsets[axis + 1 :])
            boxes[at] = (offsets, (*lengths[:axis], first, *lengths[axis + 1 :]))
            boxes.append((second, (*lengths[:axis], lengths[axis] - first, *lengths[axis + 1 :])))
    return shape, draw(some.permutations(boxes))


@some.composite
def nearly(draw: some.DrawFn) -> tuple[tuple[int, ...], Boxes]:
    """A tiling with some boxes lost, doubled, moved, grown or shrunk."""
    shape, boxes = draw(tilings())
    boxes = list(boxes)
    for _ in range(draw(some.integers(0, 3))):
        if not boxes:
            break
        at = draw(some.integers(0, len(boxes) - 1))
        offsets, lengths = boxes[at]
        how = draw(some.sampled_from(["lost", "doubled", "moved", "resized"]))
        if how == "lost":
            del boxes[at]
        elif how == "doubled":
            boxes.append(boxes[at])
        elif shape:
            axis, by = draw(some.integers(0, len(shape) - 1)), draw(some.sampled_from([-1, 1]))
            changed = list(offsets if how == "moved" else lengths)
            changed[axis] += by
            boxes[at] = (tuple(changed), lengths) if how == "moved" else (offsets, tuple(changed))
    return shape, boxes


def marked(shape: tuple[int, ...], boxes: Boxes) -> np.ndarray | None:
    """How often each element is covered; None where a box is empty or reaches outside."""
    counts = np.zeros(shape, int)
    for offsets, lengths in boxes:
        if any(o < 0 or n < 1 or o + n > s for o, n, s in zip(offsets, lengths, shape, strict=True)):
            return None
        counts[slices(offsets, lengths)] += 1
    return counts


def slices(offsets: tuple[int, ...], lengths: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(o, o + n) for o, n in zip(offsets, lengths, strict=True))


@holds(tiling=tilings())
def test_a_tiling_has_no_fault(tiling: tuple[tuple[int, ...], Boxes]) -> None:
    assert tiling_fault(*tiling) is None


@holds(few=200, tiling=nearly())
def test_a_fault_is_found_where_there_is_one(tiling: tuple[tuple[int, ...], Boxes]) -> None:
    fault, counts = tiling_fault(*tiling), marked(*tiling)
    if counts is None:
        assert fault and "outside" in fault
    elif (counts > 1).any():
        assert fault and fault.startswith("overlap")
        at = tuple(int(n) for n in fault.partition("[")[2].rstrip("]").split(",") if n.strip())
        assert counts[at] > 1
    elif (counts == 0).any():
        assert fault == f"leave a gap: {counts.sum()} of {prod(tiling[0])} elements are there"
    else:
        assert fault is None


@holds(tiling=nearly(), asked=some.data())
def test_what_meets_a_box(tiling: tuple[tuple[int, ...], Boxes], asked: some.DataObject) -> None:
    shape, boxes = tiling
    boxes = [b for b in boxes if marked(shape, [b]) is not None]
    offsets = tuple(asked.draw(some.integers(0, n - 1)) for n in shape)
    lengths = tuple(asked.draw(some.integers(1, n - o)) for n, o in zip(shape, offsets, strict=True))
    mine = np.zeros(shape, bool)
    mine[slices(offsets, lengths)] = True
    found = {}
    for overlap in BoxIndex(boxes).overlapping(offsets, lengths):
        assert overlap.at not in found
        found[overlap.at] = np.zeros(shape, bool)
        found[overlap.at][slices(overlap.offsets, overlap.lengths)] = True
    for at, box in enumerate(boxes):
        theirs = np.zeros(shape, bool)
        theirs[slices(*box)] = True
        shared = theirs & mine
        assert np.array_equal(found[at], shared) if at in found else not shared.any()


@holds(shape=SHAPES, limit=some.integers(1, 200), itemsize=some.sampled_from([1, 2, 4, 8]))
def test_cuts_are_runs_of_bytes_in_order(shape: tuple[int, ...], limit: int, itemsize: int) -> None:
    numbers = np.arange(prod(shape)).reshape(shape)
    reached = 7
    for box, offset in cut(Box("x", (0,) * len(shape), shape), 7, itemsize, limit):
        inside = numbers[slices(box.offsets, box.lengths)].reshape(-1)
        assert offset == reached
        assert np.array_equal(inside, np.arange((offset - 7) // itemsize, (offset - 7) // itemsize + inside.size))
        assert inside.size * itemsize <= max(limit, itemsize)
        reached = offset + inside.size * itemsize
    assert reached == 7 + numbers.size * itemsize


@holds(
    each=some.integers(1, 4),
    ranks=some.integers(1, 5),
    others=some.lists(some.integers(1, 3), max_size=2),
    at=some.data(),
    sections=some.lists(some.integers(1, 4), max_size=6).map(tuple),
)
def test_ranks_parts(each: int, ranks: int, others: list[int], at: some.DataObject, sections: tuple[int, ...]) -> None:
    axis = at.draw(some.integers(0, len(others)))
    sizes = [each * ranks * size for size in sections or (1,)]
    shape = (*others[:axis], sum(sizes), *others[axis:])
    split, whole = Split(axis=axis, sections=sections), np.arange(prod(shape)).reshape(shape)
    local = local_shape(shape, split, ranks)
    assert whole_shape(local, split, ranks) == shape
    boxes: Boxes = []
    for rank in range(ranks):
        pieces = np.split(whole, np.cumsum(sizes)[:-1], axis)
        own = np.concatenate([np.split(piece, ranks, axis)[rank] for piece in pieces], axis)
        assert own.shape == local
        for part in parts(shape, split, rank, ranks):
            mine = np.moveaxis(own, axis, 0)[part.local : part.local + part.lengths[axis]]
            theirs = np.moveaxis(whole[slices(part.offsets, part.lengths)], axis, 0)
            assert np.array_equal(mine, theirs)
            boxes.append((part.offsets, part.lengths))
    assert (marked(shape, boxes) == 1).all()


@holds(
    count=some.integers(0, 40),
    pp=some.integers(1, 5),
    vpp=some.integers(1, 3),
    first=some.none() | some.integers(0, 10),
    last=some.none() | some.integers(0, 10),
)
def test_layers_are_dealt_out_once(count: int, pp: int, vpp: int, first: int | None, last: int | None) -> None:
    try:
        stages = Topology(pp=pp, vpp=vpp, first=first, last=last).layers(count)
    except MismatchError:
        return
    in_order = [stages[stage][chunk] for chunk in range(vpp) for stage in range(pp)]
    assert [layer for layers in in_order for layer in layers] == list(range(count))
