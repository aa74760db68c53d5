"""Copies as a Reader of the other side: any box of it, whatever the copies look like; and the proofs before."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from memory import Memory, all_bits

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.mapped import Mapped, Renamed, check_names, prove
from vlconv.converters.tensors.rules import (
    Copy,
    Pad,
    Rows,
    concat,
    flipped,
    interleave,
    pad_rows,
    rename,
    table,
    transposed,
)
from vlconv.converters.tensors.spec import Box, TensorSpec


def memory(**shapes):
    return Memory(
        {
            name: torch.arange(1, 1 + torch.Size(shape).numel(), dtype=torch.int32).reshape(shape).view(torch.float32)
            for name, shape in shapes.items()
        }
    )


def read(reader, box):
    out = np.full(box.lengths, 7, np.uint32)
    reader.read_into(box, out)
    return out


def any_box(name, shape, random_):
    offsets = tuple(random_.randrange(n) for n in shape)
    return Box(name, offsets, tuple(random_.randint(1, n - o) for n, o in zip(shape, offsets, strict=True)))


def part(array, box):
    return array[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))]


def holds(reader, expected):
    """The reader has these tensors, whole and in a hundred boxes of each."""
    random_ = random.Random(0)
    assert {n: s.shape for n, s in reader.specs.items()} == {n: a.shape for n, a in expected.items()}
    for name, array in expected.items():
        assert np.array_equal(all_bits(reader)[name], array)
        for _ in range(100):
            box = any_box(name, array.shape, random_)
            assert np.array_equal(read(reader, box), part(array, box))


class TestMapped:
    def test_rename(self):
        left = memory(a=(4, 5))
        holds(Mapped(left, list(rename("a", "b", (4, 5)))), {"b": all_bits(left)["a"]})

    @pytest.mark.parametrize("shape", [(3, 4), (2, 3, 4), (2, 2, 3, 4)])
    def test_transposed(self, shape):
        left = memory(a=shape)
        holds(Mapped(left, list(transposed("a", "b", shape))), {"b": all_bits(left)["a"].swapaxes(-1, -2)})

    def test_interleaved_both_ways(self):
        rules = list(interleave("a", 3, (5,), [Rows("q", 4), Rows("k", 2), Rows("v", 1)]))
        left = memory(a=(21, 5))
        q, k, v = np.split(all_bits(left)["a"].reshape(3, 7, 5), [4, 6], axis=1)
        right = {"q": q.reshape(12, 5), "k": k.reshape(6, 5), "v": v.reshape(3, 5)}
        mapped = Mapped(left, rules)
        holds(mapped, right)
        holds(Mapped(mapped, flipped(rules)), all_bits(left))

    def test_leading_axes_of_one_on_either_side(self):
        """An expert's matrix is a slice of a tensor with an axis more, transposed or not."""
        left = memory(**{f"e{e}": (4, 3) for e in range(3)})
        for turn in (False, True):
            inner = (3, 4) if turn else (4, 3)
            copies = [Copy(Box(f"e{e}", (0, 0), (4, 3)), Box("all", (e, 0, 0), (1, *inner)), turn) for e in range(3)]
            stacked = np.stack([array.T if turn else array for array in all_bits(left).values()])
            mapped = Mapped(left, copies)
            holds(mapped, {"all": stacked})
            holds(Mapped(mapped, flipped(copies)), all_bits(left))

    def test_parts_of_slices_transposed(self):
        """Gate and up of one expert are column blocks of its slice."""
        copies = [
            Copy(Box(n, (0, 0), (3, 4)), Box("both", (1, 0, 3 * i), (1, 4, 3)), transpose=True)
            for i, n in enumerate(("gate", "up"))
        ]
        copies.append(Copy(Box("first", (0, 0), (4, 6)), Box("both", (0, 0, 0), (1, 4, 6))))
        left = memory(gate=(3, 4), up=(3, 4), first=(4, 6))
        bits = all_bits(left)
        holds(
            Mapped(left, copies),
            {"both": np.stack([bits["first"], np.concatenate([bits["gate"].T, bits["up"].T], axis=1)])},
        )

    def test_padding_reads_as_zeros(self):
        mapping = table(pad_rows("a", "b", 5, 8, (3,)))
        right = memory(b=(5, 3))
        holds(
            Mapped(right, flipped(mapping.copies), mapping.pads),
            {"a": np.concatenate([all_bits(right)["b"], np.zeros((3, 3), np.uint32)])},
        )

    def test_into_any_strides(self):
        left = memory(a=(4, 6))
        mapped, bits = Mapped(left, list(transposed("a", "b", (4, 6)))), all_bits(left)["a"]
        out = np.zeros((4, 9), np.uint32)
        mapped.read_into(Box("b", (1, 0), (3, 4)), out[:, ::3].T)
        assert np.array_equal(out[:, ::3].T, bits.T[1:4])
        assert not out[:, 1::3].any() and not out[:, 2::3].any()

    def test_random_tilings(self):
        """Two tensors cut at random, the pieces exchanged at random: what lands where is what numpy says."""
        random_ = random.Random(5)
        for _ in range(50):
            rows, columns = random_.randint(1, 9), random_.randint(1, 9)
            pieces = sorted({0, rows, *random_.choices(range(rows + 1), k=3)})
            spans = [(a, b - a) for a, b in pairwise(pieces)]
            order = random_.sample(range(len(spans)), len(spans))
            copies, at, turn = [], 0, random_.random() < 0.5
            for i in order:
                start, n = spans[i]
                right = Box("b", (0, at), (columns, n)) if turn else Box("b", (at, 0), (n, columns))
                copies.append(Copy(Box("a", (start, 0), (n, columns)), right, turn))
                at += n
            left = memory(a=(rows, columns))
            made = np.concatenate([all_bits(left)["a"][spans[i][0] : sum(spans[i])] for i in order])
            prove(table(copies))
            holds(Mapped(left, copies), {"b": made.T if turn else made})

    def test_parts_of_different_dtypes(self):
        left = Memory({"g": torch.zeros(2, 3, dtype=torch.bfloat16), "u": torch.zeros(2, 3)})
        with pytest.raises(MismatchError) as caught:
            Mapped(left, flipped(concat("fc1", (3,), [("g", 2), ("u", 2)])))
        assert (
            "fc1 would be made of parts with different dtypes: g is bfloat16, u is float32" in caught.value.what
            and "--dtype" in caught.value.hint
        )

    def test_finish_goes_down(self):
        called = []
        left = memory(a=(1,))
        left.finish = lambda: called.append(True)
        Mapped(Renamed(left, {"b": "a"}), list(rename("b", "c", (1,)))).finish()
        assert called == [True]


def test_renamed():
    left = memory(a=(2, 3), b=(1,))
    renamed = Renamed(left, {"x": "a"})
    assert renamed.specs == {"x": TensorSpec("x", (2, 3), "float32")}
    holds(renamed, {"x": all_bits(left)["a"]})


class TestProve:
    def test_what_is_right(self):
        prove(table([*pad_rows("a", "b", 5, 8, (3,)), *concat("c", (), [("d", 2), ("e", 3)])]))

    @pytest.mark.parametrize(
        ("rules", "says"),
        [
            ([*rename("a", "b", (2,)), *rename("a", "c", (2,))], "boxes of a overlap at [0]"),
            ([*rename("a", "c", (2,)), *rename("b", "c", (2,))], "boxes of c overlap at [0]"),
            ([Copy(Box("a", (0,), (2,)), Box("b", (1,), (2,)))], "boxes of b leave a gap: 2 of 3"),
            ([Copy(Box("a", (3,), (2,)), Box("b", (0,), (2,)))], "boxes of a leave a gap: 2 of 5"),
            ([*rename("a", "b", (2,)), Pad(Box("a", (3,), (1,)))], "boxes of a leave a gap: 3 of 4"),
            ([*rename("a", "b", (2,)), Pad(Box("a", (1,), (1,)))], "boxes of a overlap at [1]"),
            (interleave("a", 2, (), [Rows("q", 2), Rows("q", 2)]), "boxes of q overlap at [0]"),
        ],
    )
    def test_what_is_not(self, rules, says):
        with pytest.raises(MismatchError) as caught:
            prove(table(rules))
        assert says in caught.value.what


class TestNames:
    def test_all_there(self):
        check_names({"a": TensorSpec("a", (), "float32")}, {"a": ()}, "here")

    def test_the_message(self):
        have = {n: TensorSpec(n, (), "float32") for n in ("layer.1.weight", "layer.2.weight", "odd")}
        with pytest.raises(MismatchError) as caught:
            check_names(have, dict.fromkeys([f"layer.{i}.weight" for i in range(6)], ()), "a file")
        assert caught.value.what.splitlines() == [
            "a file: the tensor names are not those of this model",
            "4 missing:",
            "  layer.0.weight",
            "  layer.3.weight",
            "  layer.4.weight",
            "  … and 1 more",
            "1 not expected:",
            "  odd",
        ]

    def test_names_are_escaped_and_their_number_is_bounded(self):
        have = {f"\x1b[2J{i}": TensorSpec("", (), "float32") for i in range(20000)}
        with pytest.raises(MismatchError) as caught:
            check_names(have, {"\x1b[2Jx": ()}, "a file")
        assert (
            "\x1b" not in caught.value.what
            and "20000 not expected" in caught.value.what
            and len(caught.value.what) < 1000
        )
