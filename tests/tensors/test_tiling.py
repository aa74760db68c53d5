"""Boxes: when they tile a tensor, and which of them meet another; by brute force on small cases."""

from __future__ import annotations

import random
from itertools import pairwise
from math import prod

import numpy as np
import pytest
import torch

from vlconv.converters.tensors.dtypes import FLOATS, ITEMSIZE, storage
from vlconv.converters.tensors.spec import Box, TensorSpec, whole
from vlconv.converters.tensors.tiling import BoxIndex, tiling_fault


def part(offsets, lengths):
    return tuple(slice(o, o + n) for o, n in zip(offsets, lengths, strict=True))


def counted(shape, boxes):
    """How many boxes each element is in."""
    count = np.zeros(shape, int)
    for offsets, lengths in boxes:
        count[part(offsets, lengths)] += 1
    return count


def cuts(length, random_):
    """A random partition of an axis: (offset, length) of each piece."""
    places = sorted({0, length, *random_.choices(range(length + 1), k=random_.randrange(3))})
    return [(a, b - a) for a, b in pairwise(places)]


def tiled(shape, random_):
    """A random ragged tiling: every piece of the first axis is cut along the others in its own way."""
    if not shape:
        return [((), ())]
    found = []
    for offset, length in cuts(shape[0], random_):
        found += [((offset, *o), (length, *n)) for o, n in tiled(shape[1:], random_)]
    return found


def turned(shape, random_):
    """A tiling cut along the axes in another order."""
    order = random_.sample(range(len(shape)), len(shape))
    boxes = tiled([shape[a] for a in order], random_)
    back = [order.index(a) for a in range(len(shape))]
    return [(tuple(o[a] for a in back), tuple(n[a] for a in back)) for o, n in boxes]


SHAPES = [(1,), (7,), (4, 5), (1, 6), (3, 4, 5), (2, 3, 2, 3), ()]


class TestTiling:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_ragged_tilings_are_right(self, shape):
        random_ = random.Random(0)
        for _ in range(40):
            boxes = turned(shape, random_)
            random_.shuffle(boxes)
            assert (counted(shape, boxes) == 1).all()
            assert tiling_fault(shape, boxes) is None

    @pytest.mark.parametrize("shape", [s for s in SHAPES if s])
    def test_a_tiling_without_one_box_leaves_a_gap(self, shape):
        random_ = random.Random(1)
        for _ in range(30):
            boxes = turned(shape, random_)
            gone = boxes.pop(random_.randrange(len(boxes)))
            said = tiling_fault(shape, boxes)
            assert said == f"leave a gap: {prod(shape) - prod(gone[1])} of {prod(shape)} elements are there"

    @pytest.mark.parametrize("shape", SHAPES)
    def test_a_tiling_with_a_box_twice_or_one_more_overlaps(self, shape):
        random_ = random.Random(2)
        for _ in range(30):
            boxes = turned(shape, random_)
            starts = tuple(random_.randrange(n) for n in shape)
            more = random_.choice(
                [
                    random_.choice(boxes),
                    (starts, tuple(random_.randint(1, n - s) for s, n in zip(starts, shape, strict=True))),
                ]
            )
            said = tiling_fault(shape, random_.sample([*boxes, more], len(boxes) + 1))
            assert said.startswith("overlap at [")

    def test_random_boxes(self):
        """Any boxes at all: right exactly when every element is in one; the place that is named is in two."""
        random_, seen = random.Random(3), set()
        for _ in range(4000):
            shape = random_.choice([(3,), (2, 3), (2, 2, 2)])
            boxes = []
            for _ in range(random_.randint(1, 4)):
                offsets = tuple(random_.randrange(n) for n in shape)
                boxes.append((offsets, tuple(random_.randint(1, n - o) for n, o in zip(shape, offsets, strict=True))))
            count, said = counted(shape, boxes), tiling_fault(shape, boxes)
            if said is None:
                assert (count == 1).all()
            elif said.startswith("overlap"):
                assert count[tuple(int(n) for n in said.split("[")[1].rstrip("]").split(","))] > 1
            else:
                assert said.startswith("leave a gap") and count.max() == 1 and (count == 0).any()
            seen.add(said and said.split()[0])
        assert seen == {None, "overlap", "leave"}

    @pytest.mark.parametrize(
        ("shape", "boxes", "says"),
        [
            ((4,), [((0,), (5,))], "reach outside at [0] + [5]"),
            ((4,), [((-1,), (5,))], "reach outside"),
            ((4,), [((0,), (4,)), ((4,), (1,))], "reach outside"),
            ((4,), [((0,), (0,)), ((0,), (4,))], "reach outside"),
            ((4, 2), [((0,), (4,))], "have 1 axes where the tensor has 2"),
            ((4,), [((0, 0), (4, 1))], "have 2 axes where the tensor has 1"),
            ((4,), [], "leave a gap: 0 of 4 elements are there"),
            ((), [((), ()), ((), ())], "overlap at []"),
        ],
    )
    def test_what_is_no_box_of_it(self, shape, boxes, says):
        assert tiling_fault(shape, boxes).startswith(says)

    def test_a_large_number_of_boxes_takes_no_long(self):
        assert tiling_fault((300, 300), [((r, c), (1, 1)) for r in range(300) for c in range(300)]) is None


class TestBoxIndex:
    @pytest.mark.parametrize("shape", SHAPES)
    def test_finds_what_meets_a_box_and_nothing_else(self, shape):
        random_ = random.Random(4)
        for _ in range(40):
            boxes = random_.choice([turned, tiled])(shape, random_)
            random_.shuffle(boxes)
            index = BoxIndex(boxes)
            offsets = tuple(random_.randrange(n) for n in shape)
            lengths = tuple(random_.randint(1, n - o) for n, o in zip(shape, offsets, strict=True))
            seen = np.zeros(shape, int)
            for at, start, shared in index.overlapping(offsets, lengths):
                inside = np.zeros(shape, bool)
                inside[part(*boxes[at])] = True
                assert inside[part(start, shared)].all() and all(n > 0 for n in shared)
                seen[part(start, shared)] += 1
            assert np.array_equal(seen, counted(shape, [(offsets, lengths)]))

    def test_boxes_of_very_different_lengths(self):
        index = BoxIndex([((0, 0), (10, 1)), ((0, 1), (1, 1)), ((1, 1), (9, 1))])
        assert [tuple(found) for found in index.overlapping((5, 0), (1, 2))] == [
            (0, (5, 0), (1, 1)),
            (2, (5, 1), (1, 1)),
        ]


class TestWords:
    @pytest.mark.parametrize("dtype", ITEMSIZE)
    def test_widths_are_torchs(self, dtype):
        assert (
            torch.empty(0, dtype=getattr(torch, dtype)).element_size()
            == ITEMSIZE[dtype]
            == np.dtype(storage(dtype)).itemsize
        )
        assert np.dtype(storage(dtype)).kind == "u"
        assert (dtype in FLOATS) == (getattr(torch, dtype).is_floating_point and "float8" not in dtype)

    def test_sizes(self):
        spec = TensorSpec("a", (2, 3, 4), "bfloat16")
        assert (spec.nbytes, whole(spec), whole(spec).size) == (48, Box("a", (0, 0, 0), (2, 3, 4)), 24)
        assert (TensorSpec("a", (), "float32").nbytes, whole(TensorSpec("a", (), "float32")).size) == (4, 1)
