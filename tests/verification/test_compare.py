"""Two readers against each other: what is equal, what differs, where first and by how much; and how they are read."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
import torch
from memory import Memory

from vlconv.converters import Silent
from vlconv.converters.report import Difference
from vlconv.converters.tensors.spec import Box, TensorSpec
from vlconv.converters.verification.comparison import compare as module
from vlconv.converters.verification.comparison import elements
from vlconv.converters.verification.comparison.compare import compare

NAN, INF = float("nan"), float("inf")


class Watch(Silent):
    def __init__(self):
        self.seen = []

    def progress(self, done, total):
        self.seen.append((done, total))


def against(a, b, **how):
    return compare(Memory(a), Memory(b), how.pop("threads", 2), how.pop("observer", Silent()), **how)


def difference(a, b, **how):
    found = against({"t": a}, {"t": b}, **how)
    (only,) = found.differences
    return only


def tensor(*values, dtype=torch.float32):
    return torch.tensor(values, dtype=dtype)


@pytest.fixture(
    params=[(16 << 20, 1 << 17), (64, 3), (8, 1)], ids=["one window", "windows of blocks", "an element at a time"]
)
def window(request, monkeypatch):
    window, block = request.param
    monkeypatch.setattr(module, "WINDOW", window)
    monkeypatch.setattr(module, "MATRIX", window)
    monkeypatch.setattr(elements, "BLOCK", block)


def test_what_nobody_looked_at_is_not_called_equal(monkeypatch):
    """Were the shares of threads or processes cut wrongly, the rest would be missed without a word."""
    whole = module._Run._parts
    monkeypatch.setattr(module._Run, "_parts", lambda self, boxes, span: list(whole(self, boxes, span))[:-1])
    with pytest.raises(RuntimeError, match=r"^20 of 28 bytes were compared"):
        against({"t": tensor(1, 2, 3, 4, 5), "u": tensor(1, 2)}, {"t": tensor(1, 2, 3, 4, 5), "u": tensor(1, 2)})


class TestEqual:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
    def test_all_bits(self, dtype, window):
        a = torch.randn(7, 5, 3).to(dtype)
        found = against({"t": a, "u": a[0]}, {"u": a[0].clone(), "t": a.clone()})
        assert (found.differences, found.tensors, found.elements) == ([], 2, 120)

    def test_the_same_nan(self):
        assert against({"t": tensor(NAN, INF, -INF, -0.0)}, {"t": tensor(NAN, INF, -INF, -0.0)}).differences == []

    def test_progress_ends_at_the_total(self, window):
        watch = Watch()
        against(
            {"t": torch.zeros(30, 4), "u": torch.zeros(8, dtype=torch.bfloat16)},
            {"t": torch.zeros(30, 4), "u": torch.zeros(8, dtype=torch.bfloat16)},
            observer=watch,
        )
        assert watch.seen == sorted(watch.seen) and watch.seen[-1] == (496, 496)

    def test_both_readers_are_finished(self):
        a, b, called = Memory({"t": torch.zeros(1)}), Memory({"t": torch.zeros(1)}), []
        a.finish, b.finish = lambda: called.append("a"), lambda: called.append("b")
        compare(a, b, 1, Silent())
        assert sorted(called) == ["a", "b"]


class TestValues:
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
    def test_count_place_and_size(self, dtype, window):
        a = torch.ones(6, 5, 4, dtype=dtype)
        b = a.clone()
        b[2, 3, 1], b[4, 0, 0], b[5, 4, 3] = 1.5, -2, 1.25
        assert difference(a, b) == Difference("t", "values", 3, (2, 3, 1), 3.0)

    def test_in_the_last_element(self, window):
        a = torch.zeros(33, 3)
        b = a.clone()
        b[32, 2] = 0.5
        assert difference(a, b, threads=4) == Difference("t", "values", 1, (32, 2), 0.5)

    def test_minus_zero_is_not_zero(self):
        assert difference(tensor(0.0, 1.0), tensor(-0.0, 1.0)) == Difference("t", "values", 1, (0,), 0.0)

    def test_another_nan_is_another_value(self, window):
        a, b = (torch.tensor([0x7FC0, n], dtype=torch.int16).view(torch.bfloat16) for n in (0x7FC0, 0x7FC1))
        assert difference(a, b) == Difference("t", "values", 1, (1,), None, nan=1)

    @pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [2, 0, 1]])
    def test_infinities_have_no_distance(self, window, order):
        a, b = tensor(INF, 1.0, NAN)[order], tensor(-INF, 3.0, 0.0)[order]
        assert difference(a, b) == Difference("t", "values", 3, (0,), 2.0, nan=1)

    def test_in_a_tensor_of_many_blocks(self):
        a = torch.zeros(400, 1000)
        b = a.clone()
        b[250, 17], b[251, 3], b[399, 999] = 0.5, -2, 1
        assert difference(a, b) == Difference("t", "values", 3, (250, 17), 2.0)

    def test_in_a_single_number(self):
        assert difference(torch.tensor(1.0), torch.tensor(2.5)) == Difference("t", "values", 1, (), 1.5)

    def test_the_first_is_the_first_whichever_window_is_done_first(self, monkeypatch):
        """And the largest the largest. The first window waits for all others."""
        monkeypatch.setattr(module, "WINDOW", 8)
        a, b = Memory({"t": torch.zeros(4, 2)}), Memory({"t": tensor(0, 1, 0, 3, 0, 0, 2, 0).reshape(4, 2)})
        read, others = b.read_into, threading.Barrier(2, timeout=20)

        def held(box, out):
            read(box, out)
            if box.offsets[0] in (0, 3):
                others.wait()

        b.read_into = held
        assert compare(a, b, 2, Silent()).differences == [Difference("t", "values", 3, (0, 1), 3.0)]

    def test_every_tensor_has_its_own(self):
        found = against(
            {"a": tensor(1.0), "b": tensor(1.0), "c": tensor(1.0)},
            {"a": tensor(2.0), "b": tensor(1.0), "c": tensor(4.0)},
        )
        assert [(d.tensor, d.max_abs) for d in found.differences] == [("a", 1.0), ("c", 3.0)]


class TestShapes:
    def test_another_shape(self):
        found = against({"t": torch.zeros(2, 3), "u": torch.zeros(2)}, {"t": torch.zeros(3, 2), "u": torch.zeros(2)})
        assert found.differences == [Difference("t", "shape", note="[2, 3] and [3, 2]")]
        assert (found.tensors, found.elements) == (1, 2)

    def test_names_on_one_side(self):
        found = against({"a": torch.zeros(2), "both": torch.zeros(1)}, {"both": torch.zeros(1), "b": torch.zeros(2)})
        assert found.differences == [Difference("a", "only in A"), Difference("b", "only in B")]


class TestDtypes:
    def test_equal_after_widening(self, window):
        a = torch.randn(8, 4).bfloat16()
        assert difference(a, a.float()) == Difference(
            "t", "dtype", note="bfloat16 and float32, equal after exact widening"
        )
        assert against({"t": a}, {"t": a.float()}, values=True).differences == []

    @pytest.mark.parametrize("values", [False, True])
    def test_not_equal_after_widening(self, values, window):
        found = difference(tensor(1.0, 2.0, dtype=torch.bfloat16), tensor(1.0, 2.5), values=values)
        assert found == Difference("t", "dtype", 1, (1,), 0.5, "bfloat16 and float32, not equal after exact widening")

    def test_narrow_ones_of_the_same_width(self):
        assert (
            difference(tensor(1.0, dtype=torch.bfloat16), tensor(1.0, dtype=torch.float16)).note
            == "bfloat16 and float16, equal after exact widening"
        )
        assert (
            difference(tensor(3.0, dtype=torch.bfloat16), tensor(3.5, dtype=torch.float16), values=True).max_abs == 0.5
        )

    def test_bits_after_widening(self, window):
        """The same NaN is equal, another one and another zero are not."""
        a = torch.tensor([0x7FC0, 0x7FC1, 0x8000 - (1 << 16), 0x7F80], dtype=torch.int16).view(torch.bfloat16)
        assert difference(a, a.float()).count == 0
        b = a.float().view(torch.int32) + torch.tensor([0, 1, 0, 0], dtype=torch.int32)
        assert difference(a, b.view(torch.float32)).first == (1,)
        b = a.float()
        b[2] = 0.0
        assert difference(a, b).first == (2,)

    def test_what_only_float64_tells_apart(self):
        assert difference(tensor(1.0), tensor(1.0 + 1e-12, dtype=torch.float64), values=True).count == 1


class TestBoxes:
    def test_only_these(self, window):
        a = torch.zeros(6, 4)
        b = torch.zeros(8, 4)
        b[1, 1], b[3, 2], b[7, 0] = 1, 2, 3
        found = against({"t": a, "u": a}, {"t": b}, boxes=[Box("t", (2, 0), (3, 4))])
        assert found.differences == [Difference("t", "values", 1, (3, 2), 2.0)]
        assert (found.tensors, found.elements) == (1, 12)

    def test_several_of_one_tensor(self):
        b = torch.zeros(6, 4)
        b[1, 1], b[5, 2] = 1, 2
        found = against({"t": torch.zeros(6, 4)}, {"t": b}, boxes=[Box("t", (4, 0), (2, 4)), Box("t", (0, 0), (2, 4))])
        assert found.differences == [Difference("t", "values", 2, (1, 1), 2.0)]

    def test_none(self):
        assert against({"t": torch.zeros(1)}, {"t": torch.ones(1)}, boxes=[]).differences == []


class Reads(Memory):
    """Remembers what it was asked for."""

    def __init__(self, tensors):
        super().__init__(tensors)
        self.seen = []

    def read_into(self, box, out):
        self.seen.append((box.name, box.lengths))
        super().read_into(box, out)


class TestWindows:
    @pytest.fixture(autouse=True)
    def small(self, monkeypatch):
        monkeypatch.setattr(module, "WINDOW", 64)
        monkeypatch.setattr(module, "MATRIX", 256)

    def read(self, a, b=None):
        """How a tensor is cut."""
        ours, theirs = Reads({"t": a}), Reads({"t": a if b is None else b})
        compare(ours, theirs, 1, Silent(), values=True)
        assert ours.seen == theirs.seen
        return [lengths for _, lengths in ours.seen]

    def test_rows(self):
        assert self.read(torch.zeros(20, 4)) == [(4, 4)] * 5

    def test_of_the_wider_side(self):
        assert self.read(torch.zeros(8, 4).half(), torch.zeros(8, 4)) == [(4, 4)] * 2
        assert self.read(torch.zeros(8, 4), torch.zeros(8, 4).half()) == [(4, 4)] * 2

    def test_a_stacked_matrix_stays_in_one_piece(self):
        """Transposed on one side, a part of it would be short runs."""
        assert self.read(torch.zeros(3, 8, 8)) == [(1, 8, 8)] * 3

    def test_small_ones_are_taken_together(self):
        assert self.read(torch.zeros(12, 2, 2)) == [(4, 2, 2)] * 3

    def test_a_matrix_that_is_too_large_is_cut(self):
        assert self.read(torch.zeros(2, 16, 8)) == [(1, 8, 8)] * 4

    @pytest.mark.parametrize(("boxes", "bytes_each", "jobs"), [(256, 64, 3), (256, 16, 9), (4, 4, 9)])
    def test_small_tensors_share_one(self, monkeypatch, boxes, bytes_each, jobs):
        monkeypatch.setattr(module, "BOXES", boxes)
        monkeypatch.setattr(module, "WINDOW", 192 if bytes_each == 64 else 64)
        count = {64: 9, 16: 36, 4: 36}[bytes_each]
        tensors = {f"t{n}": torch.zeros(bytes_each // 4) for n in range(count)}
        run = module._Run(Memory(tensors), Memory(tensors))
        windows = [job.args[0] for job in run.windows([Box(name, (0,), (bytes_each // 4,)) for name in tensors])]
        assert len(windows) == jobs and [box.name for boxes in windows for box in boxes] == list(tensors)


class Constant:
    """Tensors whose elements are all one number, without memory for them."""

    def __init__(self, number, **shapes):
        self.specs = {name: TensorSpec(name, shape, "bfloat16") for name, shape in shapes.items()}
        self._number = number

    def read_into(self, box, out):
        out[...] = self._number

    def finish(self):
        pass


class TestMemory:
    def test_of_one_thread_is_not_anothers(self, monkeypatch):
        """Both have read one side of tensors that are not alike before either reads the other side."""
        tensors = {"t": torch.zeros(8), "u": torch.ones(8)}
        monkeypatch.setattr(module, "WINDOW", 32)
        b, both = Memory(tensors), threading.Barrier(2, timeout=20)
        read = b.read_into
        b.read_into = lambda box, out: (both.wait(), read(box, out))
        assert compare(Memory(tensors), b, 2, Silent()).differences == []

    def test_is_used_again(self, monkeypatch):
        """Whatever is read: of a thread and a side it is one piece of memory, unless it must grow."""
        places = []
        reader = Constant(1, a=(1000, 5000), b=(3,), c=(40, 1 << 18), d=(77, 1000))
        reader.read_into = lambda box, out: places.append(out.base)
        compare(reader, Constant(0, **{name: spec.shape for name, spec in reader.specs.items()}), 1, Silent())
        assert len(places) == 17 and len({id(place) for place in places}) == 1

    @pytest.mark.parametrize("number", [0, 1])
    @pytest.mark.parametrize("shape", [(20_000, 2048), (4, 4096, 1536)], ids=["rows", "experts"])
    def test_is_little_whatever_differs(self, number, shape):
        """36 MB for a thread, at most."""
        compare(Constant(0, t=(2,)), Constant(0, t=(2,)), 1, Silent())  # what is imported for it is not counted
        tracemalloc.start()
        try:
            found = compare(Constant(0, t=shape), Constant(number, t=shape), 1, Silent())
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert [d.count for d in found.differences] == [np.prod(shape)] * number
        assert peak < 36e6


def test_an_error_while_reading_comes_through():
    broken = Memory({"t": torch.zeros(40)})
    broken.read_into = lambda box, out: 1 / 0
    with pytest.raises(ZeroDivisionError):
        compare(Memory({"t": torch.zeros(40)}), broken, 2, Silent())
