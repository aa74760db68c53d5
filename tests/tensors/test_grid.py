"""Boxes that are the cells of a grid, as tuples and in an array; by brute force, and as columns of chunks."""

from __future__ import annotations

import random
from itertools import pairwise, product

import numpy as np
import pytest

from vlconv.converters.formats.columns import FEW, ChunkColumns, fault_of
from vlconv.converters.tensors.grid import is_grid, is_large_grid

Boxes = list[tuple[tuple[int, ...], tuple[int, ...]]]

SHAPES: list[tuple[int, ...]] = [(1,), (7,), (4, 5), (1, 6), (3, 4, 5), (2, 3, 2, 3), ()]


def grid(shape: tuple[int, ...], random_: random.Random) -> Boxes:
    """Cells in no order."""
    axes = []
    for extent in shape:
        cuts = sorted({0, extent, *random_.choices(range(extent + 1), k=random_.randrange(3))})
        axes.append([(a, b - a) for a, b in pairwise(cuts)])
    cells = [(tuple(o for o, _ in cell), tuple(n for _, n in cell)) for cell in product(*axes)]
    return random_.sample(cells, len(cells))


def once(shape: tuple[int, ...], boxes: Boxes) -> bool:
    """Whether each element is in just one box, and no box reaches outside."""
    count = np.zeros(shape, int)
    for offsets, lengths in boxes:
        if any(o < 0 or n < 1 or o + n > s for o, n, s in zip(offsets, lengths, shape, strict=True)):
            return False
        count[tuple(slice(o, o + n) for o, n in zip(offsets, lengths, strict=True))] += 1
    return bool((count == 1).all())


def array(shape: tuple[int, ...], boxes: Boxes) -> np.ndarray:
    return np.array(boxes, np.int64).reshape(len(boxes), 2, len(shape))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_grid_is_one(shape: tuple[int, ...]) -> None:
    random_ = random.Random(0)
    for _ in range(60):
        boxes = grid(shape, random_)
        assert is_grid(shape, boxes) and is_large_grid(shape, array(shape, boxes))


@pytest.mark.parametrize("shape", SHAPES)
def test_what_is_taken_for_one_covers_every_element_once(shape: tuple[int, ...]) -> None:
    """A cell lost, doubled, moved, grown, or in another's place; and both ways of looking agree."""
    random_ = random.Random(1)
    for _ in range(300):
        boxes = grid(shape, random_)
        at = random_.randrange(len(boxes))
        offsets, lengths = boxes[at]
        by = [random_.choice([-1, 0, 0, 1]) for _ in shape]
        moved = (tuple(map(sum, zip(offsets, by, strict=True))), lengths)
        grown = (offsets, tuple(map(sum, zip(lengths, by, strict=True))))
        boxes[at : at + 1] = random_.choice([[], [boxes[at]] * 2, [moved], [grown], [random_.choice(boxes)]])
        found = is_grid(shape, boxes)
        assert found == is_large_grid(shape, array(shape, boxes))
        assert found == once(shape, boxes)


def test_axes_of_another_number() -> None:
    assert not is_grid((4, 2), [((0,), (4,))])
    assert not is_large_grid((4, 2), np.array([[[0], [4]]]))


@pytest.mark.parametrize("number", [FEW - 1, FEW, FEW + 1, 400])
def test_chunks_as_columns(number: int) -> None:
    boxes = np.array([[[row, 0], [1, 3]] for row in range(number)])
    shape = (number, 3)

    def said(changed: np.ndarray) -> str | None:
        return fault_of(ChunkColumns(changed, np.arange(len(changed))), shape)

    assert said(boxes) is said(boxes[::-1]) is None
    assert said(boxes[1:]) == f"leave a gap: {3 * number - 3} of {3 * number} elements are there"
    assert said(np.concatenate([boxes, boxes[5:6]])) == "overlap at [5, 0]"
    ragged = np.concatenate([boxes[:-1], [[[number - 1, 0], [1, 2]], [[number - 1, 2], [1, 1]]]])
    assert said(ragged) is None
    boxes[3, 0, 1] = 1
    assert said(boxes) == "reach outside at [3, 1] + [1, 3]"
