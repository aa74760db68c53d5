"""What was done to numbers where they stand: "exactly" is said of what is so to the bit, and of nothing else."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from memory import Memory
from torch import Tensor

from vlconv.converters.report import Silent
from vlconv.converters.tensors.spec import TensorSpec
from vlconv.converters.verification.comparison.compare import compare
from vlconv.converters.verification.diagnosis.computed import Made, computed
from vlconv.converters.verification.diagnosis.diagnose import diagnosed


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def noise(dtype: torch.dtype = torch.bfloat16) -> Tensor:
    return torch.randn(48, 64, generator=torch.Generator().manual_seed(2)).to(dtype)


def made(a: Tensor, b: Tensor) -> Made | None:
    """Without what is said where there are many."""
    found = computed(Memory({"x": a}), Memory({"x": b}), "x")
    return found and found._replace(each="")


@pytest.mark.parametrize("many", [3, 40])
def test_factors_are_told_one_by_one_where_they_are_few(many: int) -> None:
    """Each tensor's own stands in its note."""
    a = {f"x{i}": noise() for i in range(many)}
    b = {name: (t.float() * (2.05 + i / 10)).bfloat16() for i, (name, t) in enumerate(a.items())}
    left, right = Memory(a), Memory(b)
    differences = compare(left, right, 1, Silent()).differences
    found = diagnosed(left, right, None, differences)
    assert sum(len(one.tensors) for one in found) == many and not any(one.exact for one in found)
    factors = [float(d.note.removeprefix("A's numbers times ").partition(",")[0]) for d in differences]
    assert factors == pytest.approx([2.05 + i / 10 for i in range(many)], rel=0.004)
    if many > 12:
        assert [one.says for one in found] == [
            "A's numbers times one factor, in each tensor another one, to within rounding"
        ]
    else:
        assert [one.says for one in found] == [d.note for d in differences]


def put(tensor: Tensor, number: float, row: int = 40) -> Tensor:
    """The tensor with another number in one place."""
    tensor = tensor.clone()
    tensor[row, 7] = number
    return tensor


@pytest.mark.parametrize("factor", [2.0, 0.5, -1.0, -0.25, 2.0**40])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_a_power_of_two_is_exact(factor: float, dtype: torch.dtype) -> None:
    a = noise(dtype)
    assert made(a, a * factor) == Made(f"A's numbers times {factor:.6g}, exactly", True)


@pytest.mark.parametrize("factor", [3**-0.5, 1.7, -3.0])
def test_another_factor_is_never_called_exact(factor: float) -> None:
    a = noise()
    found = made(a, (a.float() * factor).bfloat16())
    assert found and not found.exact and found.says.endswith(", to within rounding")


def test_one_last_place_off_and_it_is_not_exact() -> None:
    a = noise()
    b = a * 2
    b.view(torch.int16)[40, 7] += 1
    assert made(a, b) == Made("A's numbers times 2, to within rounding", False)


def test_nor_is_a_zero_of_the_other_sign() -> None:
    a = put(noise(), 0.0)
    assert made(a, -a) == Made("A's numbers times -1, exactly", True)
    assert made(a, put(-a, 0.0)) == Made("A's numbers times -1, to within rounding", False)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_number_is_not_taken_for_one(number: float) -> None:
    a = noise()
    assert made(a, put(a * 2, number)) is None
    assert made(put(a, number), put(a * 2, 0.0)) is None
    assert made(put(a, number), a * 2) is None


def test_nan_on_both_sides_is_left_out_of_account_and_nothing_is_exact() -> None:
    a = put(noise(), float("nan"))
    assert made(a, a * 2) == Made("A's numbers times 2, to within rounding", False)
    infinite = put(noise(), float("inf"))
    assert made(infinite, infinite * 2) == Made("A's numbers times 2, exactly", True)


def test_where_most_of_the_first_numbers_are_zero_there_is_no_factor() -> None:
    a = noise()
    largest = a.abs() == a.abs().max()
    assert made(a, torch.where(largest, a, torch.zeros_like(a))) is None


def test_nor_where_it_would_be_infinite_or_nothing() -> None:
    tiny, huge = (torch.full((4, 4), number, dtype=torch.float64) for number in (1e-310, 1e300))
    huge[0, 0] = tiny[0, 0] = 0.0
    assert made(tiny, huge) is None and made(huge, tiny) is None
    for a, b in ((1e-300, 1.7e8), (1.7e8, 1e-300)):  # by 2^1023.99 and back
        one, other = (torch.tensor([[0.0, number]], dtype=torch.float64) for number in (a, b))
        found = made(one, other)
        assert found and "times" in found.says


def test_what_is_made_of_one_tensor_is_not_made_of_a_whole_model_s_specifications() -> None:
    """Of each of n tensors all n would be looked at."""

    class Specs(dict[str, TensorSpec]):
        def __iter__(self) -> Iterator[str]:
            raise AssertionError("all of them")

        items = values = keys = __iter__  # type: ignore[assignment]

    def held(tensor: Tensor) -> Any:
        reader: Any = Memory({"x": tensor})
        reader.specs = Specs(reader.specs)
        return reader

    row = torch.rand(32).bfloat16() + 1
    for a, b in ((row, row - 1), (noise(), noise().half().bfloat16() * 1.001), (noise(), noise().float())):
        computed(held(a), held(b), "x")
