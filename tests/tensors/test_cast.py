"""--dtype: every number as torch casts it, and none silently lost."""

from __future__ import annotations

import platform
from itertools import permutations, product

import numpy as np
import pytest
import torch
from memory import Memory, bits

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.cast import BLOCK, Cast
from vlconv.converters.tensors.dtypes import FLOATS, converted, storage
from vlconv.converters.tensors.spec import Box, TensorSpec

PAIRS = list(product(FLOATS, FLOATS))

NARROW = {"bfloat16": 3e38, "float16": 6e4, "float32": 3e38, "float64": 3e38}
"""About the largest number that every dtype down to this one holds."""


def numbers(below, above):
    """All kinds of numbers of a dtype that fit into another."""
    largest = min(NARROW[below], NARROW[above])
    kinds = [
        0.0,
        -0.0,
        1.0,
        -1.5,
        1 / 3,
        1e-7,
        1e-42,
        -1e-40,
        largest / 2,
        -largest / 2,
        float("inf"),
        float("-inf"),
        float("nan"),
    ]
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(500, generator=generator, dtype=torch.float64) * 10.0 ** torch.randint(
        -9, 4, (500,), generator=generator
    )
    ties = 1 + torch.arange(64, dtype=torch.float64) / 2**12  # halfway between neighbours of the narrow ones
    return torch.cat([torch.tensor(kinds, dtype=torch.float64), spread, ties]).to(getattr(torch, below))


def cast(tensor, dtype, box=None):
    reader = Cast(Memory({"a": tensor}), dtype)
    box = box or Box("a", (0,) * tensor.ndim, tuple(tensor.shape))
    out = np.empty(box.lengths, storage(dtype))
    reader.read_into(box, out)
    return out


@pytest.mark.parametrize(("below", "above"), PAIRS)
def test_as_torch_casts(below, above):
    tensor = numbers(below, above)
    assert np.array_equal(cast(tensor, above), bits(tensor.to(getattr(torch, above))))


EVERY = np.arange(1 << 16, dtype=np.uint16)


def about(narrow, steps):
    """Bits of float32 that lie about those of numbers of 16 bits, and about the middle between two of them."""
    return (narrow[:, None].astype(np.uint32) + np.array(steps, np.int64).astype(np.uint32)).reshape(-1)


def edges(dtype):
    """Every pattern of 16 bits; of wider dtypes a great many, what rounding and NaNs hang on among them."""
    if dtype in ("bfloat16", "float16"):
        return EVERY
    generator = np.random.default_rng(0)
    bfloat16 = about(EVERY.astype(np.uint32) << 16, [0, 1, 0x7FFF, 0x8000, 0x8001])
    float16 = about(EVERY.view(np.float16).astype(np.float32).view(np.uint32), [-1, 0, 1, 0xFFF, 0x1000, 0x1001])
    any_bits = generator.integers(0, 1 << 32, 1 << 18, dtype=np.uint32)
    narrow = np.concatenate([bfloat16, float16, any_bits])
    if dtype == "float32":
        return narrow
    with np.errstate(invalid="ignore"):
        wide = narrow.view(np.float32).astype(np.float64).view(np.uint64)
    any_bits = generator.integers(0, 1 << 64, 1 << 18, dtype=np.uint64)
    halfway = wide[::5] + (1 << 28)  # between two float32
    return np.concatenate([wide, wide[::3] + 1, wide[::3] - 1, halfway, any_bits, any_bits << 32])


@pytest.mark.parametrize(("below", "above"), list(permutations(FLOATS, 2)))
def test_every_edge_as_torch_casts(below, above):
    """To the bit, NaNs too; but what torch makes of a NaN for bfloat16 hangs on the processor and the place."""
    source = edges(below)
    tensor = torch.from_numpy(source.view(storage(below).removeprefix("u"))).view(getattr(torch, below))
    expected, found = bits(tensor.to(getattr(torch, above))), converted(source, below, above)
    nan = tensor.isnan().numpy()
    if above == "bfloat16":
        assert nan.sum() > 1000 and set(found[nan]) == {0x7FC0 if below == "float16" else 0xFFFF}
        if platform.machine() == "x86_64":
            assert set(found[nan]) <= set(expected[nan]) <= {0x7FC0, 0xFFFF}
        expected = np.where(nan, found, expected)
    assert np.array_equal(found, expected)


def test_a_float64_goes_by_way_of_float32():
    """As in torch: rounded twice, and so half a place away from what lies nearest."""
    for above, place in (("bfloat16", 2**-7), ("float16", 2**-10)):
        tensor = torch.tensor([1 + place / 2 + 2**-40], dtype=torch.float64)
        one = bits(torch.ones(1, dtype=getattr(torch, above)))
        assert np.array_equal(bits(tensor.to(getattr(torch, above))), one)
        assert np.array_equal(cast(tensor, above), one)


@pytest.mark.parametrize(
    ("below", "above"),
    [("bfloat16", "float32"), ("float16", "float32"), ("float32", "float64"), ("bfloat16", "float64")],
)
def test_widening_loses_nothing(below, above):
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    tensor = every.view(getattr(torch, below)) if below != "float32" else numbers(below, above)
    wide = cast(tensor, above)
    back = cast(torch.from_numpy(wide.view(storage(above).removeprefix("u"))).view(getattr(torch, above)), below)
    numeric = ~tensor.isnan().numpy()
    assert (
        np.array_equal(back[numeric], bits(tensor)[numeric])
        and torch.from_numpy(wide.view(above))[tensor.isnan()].isnan().all()
    )


def test_boxes_and_strides():
    tensor = torch.randn(6, 5, 4)
    box = Box("a", (1, 0, 2), (3, 5, 2))
    wanted = bits(tensor.bfloat16())[1:4, 0:5, 2:4]
    assert np.array_equal(cast(tensor, "bfloat16", box), wanted)
    out = np.zeros((2, 5, 9), np.uint16)
    Cast(Memory({"a": tensor}), "bfloat16").read_into(box, out[:, :, ::3].transpose(2, 1, 0))
    assert np.array_equal(out[:, :, ::3].transpose(2, 1, 0), wanted) and not out[:, :, 1].any()


@pytest.mark.parametrize(
    ("value", "below", "above"),
    [
        (1e5, "float32", "float16"),
        (-7e4, "bfloat16", "float16"),
        (1e39, "float64", "float32"),
        (3.4e38, "float32", "bfloat16"),
    ],
)
def test_a_number_too_large(value, below, above):
    tensor = torch.tensor([1.0, value, float("inf")], dtype=getattr(torch, below))
    assert tensor[1].isfinite()
    with pytest.raises(MismatchError) as caught:
        cast(tensor, above)
    assert caught.value.what == f"a: holds numbers too large for {above}"


def test_a_number_too_large_in_a_later_block():
    tensor = torch.ones(3, BLOCK)
    tensor[0, 0] = float("inf")
    assert np.array_equal(cast(tensor, "float16"), bits(tensor.half()))
    tensor[2, 1] = 65520.0  # the smallest that is rounded up to 2^16
    with pytest.raises(MismatchError, match="too large for float16"):
        cast(tensor, "float16")


def test_a_tensor_without_axes_or_elements():
    for tensor in (torch.tensor(float("nan")), torch.tensor(1.5), torch.ones(0, 3)):
        assert np.array_equal(cast(tensor, "float16"), bits(tensor.half()))
        assert np.array_equal(cast(tensor.half(), "float32"), bits(tensor))


def test_the_same_dtype_goes_through_untouched():
    payload = torch.tensor([0x7F81, 0x7FC1, -1], dtype=torch.int16).view(torch.bfloat16)  # NaNs of several kinds
    assert np.array_equal(cast(payload, "bfloat16"), bits(payload))


def test_specs():
    below = Memory({"a": torch.zeros(2), "b": torch.zeros(3, dtype=torch.bfloat16)})
    reader = Cast(below, "bfloat16")
    assert reader.specs == {"a": TensorSpec("a", (2,), "bfloat16"), "b": TensorSpec("b", (3,), "bfloat16")}


def test_finish_goes_down():
    below, called = Memory({"a": torch.zeros(1)}), []
    below.finish = lambda: called.append(True)
    Cast(below, "float16").finish()
    assert called == [True]
