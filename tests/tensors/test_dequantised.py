"""FP8 numbers made plain: vLLM's formula and transformers' own op, box by box; exact numbers say what was rounded."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from fp8 import FP8, plain, quantised
from memory import Memory, all_bits, bits

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.counting import Rounded
from vlconv.converters.tensors.dtypes import storage
from vlconv.converters.tensors.fp8 import dequantised
from vlconv.converters.tensors.fp8.dequantised import Dequantised
from vlconv.converters.tensors.fp8.scaled import Scaled
from vlconv.converters.tensors.spec import Box

SCALES = [torch.float32, torch.bfloat16, torch.float8_e8m0fnu]
TARGETS = ["bfloat16", "float32"]


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(shape, generator=generator) * 0.02 * torch.exp2(torch.randn(shape, generator=generator))
    ).bfloat16()


def reader(codes: torch.Tensor, scales: torch.Tensor, block: tuple[int, int], dtype: str = "bfloat16") -> Dequantised:
    below = Memory({"w": codes, "w_scale_inv": scales, "n": torch.ones(3, dtype=torch.bfloat16)})
    return Dequantised(below, [Scaled("w", "w_scale_inv", block)], dtype)


def boxes(shape: tuple[int, ...], count: int, seed: int = 0) -> list[Box]:
    random = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        ends = [sorted(random.choice(size + 1, 2, replace=False).tolist()) for size in shape]
        found.append(Box("w", tuple(a for a, _ in ends), tuple(b - a for a, b in ends)))
    return found


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("shape", "block"),
    [
        ((256, 384), (128, 128)),
        ((300, 200), (128, 128)),
        ((50, 70), (16, 32)),
        ((3, 50, 70), (32, 16)),
        ((40, 33), (1, 0)),
    ],
)
def test_as_vllm_computes(
    shape: tuple[int, ...], block: tuple[int, int], scale: torch.dtype, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and in boxes that begin and end anywhere."""
    codes, scales = quantised(weight(*shape), block, scale)
    ours = reader(codes, scales, block, target)
    want = bits(plain(codes, scales, block, getattr(torch, target)))
    assert list(ours.specs) == ["w", "n"] and ours.specs["w"].dtype == target
    assert np.array_equal(all_bits(ours)["w"], want)
    monkeypatch.setattr(dequantised, "BLOCK", 100)
    for box in boxes(shape, 30):
        out = np.zeros(box.lengths[::-1], storage(target)).T  # of any strides
        ours.read_into(box, out)
        assert np.array_equal(out, want[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))])


@pytest.mark.parametrize("scale", [torch.float32, torch.bfloat16])
def test_as_transformers_computes(scale: torch.dtype) -> None:
    """Where all blocks are whole: of others it takes rows and columns of another block."""
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    if not hasattr(fp8, "Fp8Dequantize"):
        pytest.skip("transformers 5 has it")
    codes, scales = quantised(weight(256, 384), (128, 128), scale)
    theirs = fp8.Fp8Dequantize(None)._dequantize_one(codes, scales, torch.bfloat16)
    assert theirs.dtype == torch.bfloat16
    assert np.array_equal(all_bits(reader(codes, scales, (128, 128)))["w"], bits(theirs))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("scale", SCALES)
def test_what_is_rounded_is_counted(scale: torch.dtype, target: str) -> None:
    """float64 holds every product exactly."""
    codes, scales = quantised(weight(70, 90), (32, 32), scale)
    wide = scales.double().repeat_interleave(32, 0).repeat_interleave(32, 1)[:70, :90]
    exact = codes.double() * wide
    ours = reader(codes, scales, (32, 32), target)
    kept = torch.from_numpy(all_bits(ours)["w"].view(f"i{4 if target == 'float32' else 2}")).view(
        getattr(torch, target)
    )
    count = int((kept.double() != exact).sum())
    assert ours.counted() == {"w": Rounded(70 * 90, count)}
    if scale == torch.float8_e8m0fnu or (target, scale) == ("float32", torch.bfloat16):
        assert count == 0
    else:
        assert count > 1000


def test_codes_and_scales_of_every_kind() -> None:
    """Each code with scales of few and of many bits, the tiniest among them; a NaN stays one and counts as exact."""
    codes = torch.arange(256, dtype=torch.uint8).view(FP8)[None].repeat(6, 1)
    scales = torch.tensor([[1.0], [0.1], [1 / 3], [2.0**-126], [1.17e-38], [3e35]])
    ours = reader(codes, scales, (1, 0), "float32")
    found = torch.from_numpy(all_bits(ours)["w"].view(np.int32)).view(torch.float32)
    exact = codes.double() * scales.double()
    assert torch.equal(found.isnan(), exact.isnan())
    numbers = ~exact.isnan()
    assert torch.equal(found[numbers], exact[numbers].float())
    assert ours.counted()["w"].rounded == int((found.double() != exact)[numbers].sum()) > 0


def test_a_product_too_small_for_all_its_bits() -> None:
    """Of a scale with twenty bits, which would do were it larger."""
    codes = torch.arange(127, dtype=torch.uint8).view(FP8)[None]
    scales = torch.tensor([[2.0**-126 * (1 + 2.0**-19)]])
    ours = reader(codes, scales, (1, 0), "float32")
    found = torch.from_numpy(all_bits(ours)["w"].view(np.int32)).view(torch.float32)
    assert ours.counted()["w"].rounded == int((found.double() != codes.double() * scales.double()).sum()) > 0


def test_in_another_process() -> None:
    """What it has computed there is added here; what nobody has read yet is read for the count alone."""
    codes, scales = quantised(weight(64, 48), (16, 16))
    ours = reader(codes, scales, (16, 16))
    whole = ours.counted()
    other, here = pickle.loads(pickle.dumps(ours)), reader(codes, scales, (16, 16))
    for at, step in ((0, other), (32, here)):
        step.read_into(Box("w", (at, 0), (32, 48)), np.empty((32, 48), np.uint16))
    here.take_over(other.hand_over())
    assert here._counted == whole and here.counted() == whole


@pytest.mark.parametrize(
    ("value", "says"),
    [(float("nan"), "w_scale_inv"), (float("inf"), "w_scale_inv"), (-1.0, "w_scale_inv"), (3e38, "w: ")],
)
def test_scales_that_are_none(value: float, says: str) -> None:
    codes, scales = quantised(weight(64, 48), (16, 16))
    scales[1, 2] = value
    ours = reader(codes, scales, (16, 16))
    ours.read_into(Box("w", (0, 0), (16, 48)), np.empty((16, 48), np.uint16))
    with pytest.raises(MismatchError, match=says):
        all_bits(ours)


def test_the_boxes_of_scales_and_elements() -> None:
    for block, shape in product([(16, 32), (1, 0)], [(50, 70), (2, 50, 70)]):
        one = Scaled("w", "s", block)
        for box in boxes(shape, 40):
            at = one.scales_of(box, shape)
            back = one.elements_of(at, shape)
            for axis in range(len(shape)):
                begin, end = box.offsets[axis], box.offsets[axis] + box.lengths[axis]
                assert back.offsets[axis] <= begin < end <= back.offsets[axis] + back.lengths[axis] <= shape[axis]
            assert one.scales_of(back, shape) == at
            assert all(o + n <= s for o, n, s in zip(at.offsets, at.lengths, one.scale_shape(shape), strict=True))


def test_a_scale_of_its_own_for_each_place() -> None:
    """Which block is which: every code is 1, and every scale another number."""
    codes = torch.ones(5, 7).to(FP8)
    scales: Any = torch.arange(1.0, 13.0).reshape(3, 4)
    found = all_bits(reader(codes, scales, (2, 2), "float32"))["w"].view(np.float32)
    assert found.tolist() == [[float(1 + r // 2 * 4 + c // 2) for c in range(7)] for r in range(5)]
