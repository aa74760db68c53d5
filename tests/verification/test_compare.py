"""Two readers against each other: what is equal, what differs, where first and by how much."""

from __future__ import annotations

import pytest
import torch
from memory import Memory

from vlconv.converters import Silent
from vlconv.converters.report import Difference
from vlconv.converters.tensors.spec import Box
from vlconv.converters.verification.compare import compare

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


@pytest.fixture(params=[16 << 20, 64, 8], ids=["one window", "small windows", "tiny windows"])
def window(request, monkeypatch):
    monkeypatch.setattr("vlconv.converters.verification.compare.WINDOW", request.param)


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

    def test_another_nan_is_another_value(self):
        a, b = (torch.tensor([0x7FC0, n], dtype=torch.int16).view(torch.bfloat16) for n in (0x7FC0, 0x7FC1))
        assert difference(a, b) == Difference("t", "values", 1, (1,), None)

    def test_infinities_have_no_distance(self):
        assert difference(tensor(INF, 1.0, NAN), tensor(-INF, 3.0, 0.0)) == Difference("t", "values", 3, (0,), 2.0)

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
    def test_not_equal_after_widening(self, values):
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

    def test_none(self):
        assert against({"t": torch.zeros(1)}, {"t": torch.ones(1)}, boxes=[]).differences == []


def test_an_error_while_reading_comes_through():
    broken = Memory({"t": torch.zeros(40)})
    broken.read_into = lambda box, out: 1 / 0
    with pytest.raises(ZeroDivisionError):
        compare(Memory({"t": torch.zeros(40)}), broken, 2, Silent())
