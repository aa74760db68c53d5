"""--dtype: every number as torch casts it, and none silently lost."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from memory import Memory, bits

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.cast import Cast
from vlconv.converters.tensors.dtypes import FLOATS, storage
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
