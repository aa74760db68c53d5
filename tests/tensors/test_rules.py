"""The mapping language: what each helper says of two tensors, held against numpy's own words for it."""

from __future__ import annotations

import numpy as np
import pytest

from vlconv.converters.tensors.mapped import prove
from vlconv.converters.tensors.rules import (
    Copy,
    Pad,
    Rows,
    Table,
    concat,
    flipped,
    hulls,
    interleave,
    pad_rows,
    rename,
    table,
    transposed,
)
from vlconv.converters.tensors.spec import Box


def numbered(shapes):
    """Arrays in which every element of all tensors is another number."""
    start, arrays = 0, {}
    for name, shape in shapes.items():
        arrays[name] = np.arange(start, start + np.prod(shape, dtype=int)).reshape(shape)
        start += arrays[name].size
    return arrays


def part(array, box):
    return array[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))]


def moved(copies, sources, fill=-1):
    """Right tensors made from left ones, box by box."""
    made = {name: np.full(shape, fill) for name, shape in hulls(c.right for c in copies).items()}
    for left, right, transpose in copies:
        piece = part(sources[left.name], left)
        part(made[right.name], right)[...] = (piece.swapaxes(-1, -2) if transpose else piece).reshape(right.lengths)
    return made


def both_ways(rules, left, right):
    """The rules give these right tensors from those left ones, and the other way round.

    Each covers every element once.
    """
    mapping = table(rules)
    prove(mapping)
    assert mapping.left() == {n: a.shape for n, a in left.items()} and mapping.right() == {
        n: a.shape for n, a in right.items()
    }
    same(moved(mapping.copies, left), right)
    backwards = moved(flipped(mapping.copies), right)
    for box in mapping.pads:
        backwards[box.name] = np.concatenate([backwards[box.name], part(left[box.name], box)])
    same(backwards, left)


def same(found, wanted):
    assert found.keys() == wanted.keys() and all(np.array_equal(found[n], wanted[n]) for n in wanted)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (4, 3, 2, 2, 2)])
def test_rename(shape):
    arrays = numbered({"l": shape})
    both_ways(rename("l", "r", shape), arrays, {"r": arrays["l"]})


@pytest.mark.parametrize("shape", [(2, 3), (3, 2, 5), (2, 3, 4, 5)])
def test_transposed(shape):
    arrays = numbered({"l": shape})
    both_ways(transposed("l", "r", shape), arrays, {"r": arrays["l"].swapaxes(-1, -2)})


@pytest.mark.parametrize("tail", [(), (5,)])
@pytest.mark.parametrize(("heads", "groups", "width"), [(8, 4, 3), (4, 4, 2), (6, 1, 2), (6, 3, 1)])
def test_query_groups(heads, groups, width, tail):
    right = numbered({"q": (heads * width, *tail), "k": (groups * width, *tail), "v": (groups * width, *tail)})
    per_group = heads // groups * width
    q, k, v = (right[n].reshape(groups, -1, *tail) for n in "qkv")
    left = np.concatenate([q, k, v], axis=1).reshape(-1, *tail)
    both_ways(
        interleave("l", groups, tail, [Rows("q", per_group), Rows("k", width), Rows("v", width)]), {"l": left}, right
    )


@pytest.mark.parametrize("tail", [(), (5,)])
def test_three_parts_of_one_tensor(tail):
    heads, width = 4, 3
    right = numbered({"qkv": (3 * heads * width, *tail)})
    left = right["qkv"].reshape(3, heads, width, *tail).swapaxes(0, 1).reshape(-1, *tail)
    parts = [Rows("qkv", width, start) for start in (0, heads * width, 2 * heads * width)]
    both_ways(interleave("l", heads, tail, parts), {"l": left}, right)


@pytest.mark.parametrize("tail", [(), (5,)])
def test_concat(tail):
    right = numbered({"gate": (4, *tail), "up": (4, *tail), "more": (1, *tail)})
    both_ways(concat("l", tail, [("gate", 4), ("up", 4), ("more", 1)]), {"l": np.concatenate([*right.values()])}, right)


@pytest.mark.parametrize("padded", [5, 6, 9])
def test_padding(padded):
    left = numbered({"l": (padded, 3)})
    both_ways(pad_rows("l", "r", 5, padded, (3,)), left, {"r": left["l"][:5]})


def test_fewer_rows_than_the_vocabulary_are_no_padding():
    """The shape check names them."""
    assert list(pad_rows("l", "r", 5, 4, (3,))) == list(rename("l", "r", (5, 3)))


def test_flipped():
    copies = [*rename("a", "b", (2, 3)), *transposed("c", "d", (2, 3))]
    assert flipped(copies) == [
        Copy(Box("b", (0, 0), (2, 3)), Box("a", (0, 0), (2, 3))),
        Copy(Box("d", (0, 0), (3, 2)), Box("c", (0, 0), (2, 3)), transpose=True),
    ]
    assert flipped(flipped(copies)) == copies


def test_table_and_hulls():
    copy, pad = Copy(Box("a", (0,), (2,)), Box("b", (3,), (2,))), Pad(Box("a", (2,), (1,)))
    mapping = table([copy, pad])
    assert mapping == Table([copy], [pad.box])
    assert (mapping.left(), mapping.right()) == ({"a": (3,)}, {"b": (5,)})
    assert hulls([Box("a", (1, 0), (2, 7)), Box("a", (0, 3), (1, 1)), Box("b", (), ())]) == {"a": (3, 7), "b": ()}


def test_the_worked_example_of_interleave() -> None:
    """The six lines of its docstring, by hand."""
    parts = [Rows("q", 8), Rows("k", 4), Rows("v", 4)]
    found = [
        (c.left.offsets[0], c.left.lengths[0], c.right.name, c.right.offsets[0], c.right.lengths)
        for c in interleave("qkv", groups=2, tail=(5,), parts=parts)
    ]
    assert found == [
        (0, 8, "q", 0, (8, 5)),
        (8, 4, "k", 0, (4, 5)),
        (12, 4, "v", 0, (4, 5)),
        (16, 8, "q", 8, (8, 5)),
        (24, 4, "k", 4, (4, 5)),
        (28, 4, "v", 4, (4, 5)),
    ]


def test_rows_further_apart_than_a_group_has() -> None:
    """Query and gate beside each other on the right, apart on the left: per group [q q | g g], head by head [q g]."""
    parts = [Rows("qg", 1, start=0, step=4), Rows("qg", 1, start=2, step=4)]
    parts += [Rows("qg", 1, start=1, step=4), Rows("qg", 1, start=3, step=4)]
    found = [(c.left.offsets[0], c.right.offsets[0]) for c in interleave("l", groups=2, tail=(), parts=parts)]
    assert found == [(0, 0), (1, 2), (2, 1), (3, 3), (4, 4), (5, 6), (6, 5), (7, 7)]
