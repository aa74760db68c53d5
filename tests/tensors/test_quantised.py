"""Plain tensors made FP8: the rule written out in torch, transformers' own op, and what differs between quantisers."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from fp8 import plain, quantised
from memory import Memory, all_bits, bits

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.counting import Rounded
from vlconv.converters.tensors.dtypes import storage
from vlconv.converters.tensors.fp8 import quantised as module
from vlconv.converters.tensors.fp8.quantised import Quantised
from vlconv.converters.tensors.fp8.scaled import Scaled
from vlconv.converters.tensors.spec import Box, whole

SCALES = [torch.float32, torch.bfloat16, torch.float8_e8m0fnu]
SHAPES = [
    ((256, 384), (128, 128)),
    ((300, 200), (128, 128)),
    ((50, 70), (16, 32)),
    ((3, 50, 70), (32, 16)),
    ((40, 33), (1, 0)),
]


def weight(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    spread = torch.exp2(2 * torch.randn(shape, generator=generator))
    return (torch.randn(shape, generator=generator) * 0.02 * spread).bfloat16()


def reader(number: torch.Tensor, block: tuple[int, int], scale: torch.dtype, power_of_two: bool = False) -> Quantised:
    below = Memory({"w": number, "n": torch.ones(3, dtype=torch.bfloat16)})
    dtypes = {"s": str(scale).removeprefix("torch.")}
    return Quantised(below, [Scaled("w", "s", block)], dtypes, power_of_two=power_of_two)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(("shape", "block"), SHAPES)
def test_the_rule(
    shape: tuple[int, ...], block: tuple[int, int], scale: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, and in boxes that begin and end anywhere, whatever is read and computed at a time."""
    number = weight(*shape)
    codes, scales = quantised(number, block, scale)
    ours = reader(number, block, scale)
    assert list(ours.specs) == ["w", "s", "n"]
    found = all_bits(ours)
    assert np.array_equal(found["w"], bits(codes)) and np.array_equal(found["s"], bits(scales))
    random = np.random.default_rng(1)
    for tile, step in ((module.TILE, module.BLOCK), (600, 100)):
        monkeypatch.setattr(module, "TILE", tile)
        monkeypatch.setattr(module, "BLOCK", step)
        for spec in (ours.specs["w"], ours.specs["s"]):
            for _ in range(25):
                ends = [sorted(random.choice(size + 1, 2, replace=False).tolist()) for size in spec.shape]
                box = Box(spec.name, tuple(a for a, _ in ends), tuple(b - a for a, b in ends))
                out = np.zeros(box.lengths, storage(spec.dtype))
                ours.read_into(box, out)
                at = tuple(slice(a, b) for a, b in ends)
                assert np.array_equal(out, found[spec.name][at])


def test_what_becomes_of_special_blocks() -> None:
    """Zeros have the scale 1; the largest of a block becomes 448; a block may be tiny."""
    number = torch.zeros(4, 8, dtype=torch.bfloat16)
    number[0, 5], number[2, 1], number[3, 6] = -3.0, 2.0**-120, float(torch.finfo(torch.bfloat16).tiny)
    found = all_bits(reader(number, (2, 4), torch.float32))
    scales = torch.from_numpy(found["s"].view(np.float32))
    assert scales[0].tolist() == [1.0, float(torch.tensor(3.0) / 448)]
    assert found["w"][0, 5] == 0xFE and found["w"][2, 1] == 0x7E
    assert found["w"][0, :5].max() == 0


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_numbers_that_have_no_place(value: float) -> None:
    number = weight(50, 70)
    number[40, 60] = value
    ours = reader(number, (16, 32), torch.float32)
    ours.read_into(Box("w", (0, 0), (20, 70)), np.empty((20, 70), np.uint8))
    for name in ("w", "s"):
        spec = ours.specs[name]
        with pytest.raises(MismatchError, match="w: holds numbers"):
            ours.read_into(whole(spec), np.empty(spec.shape, storage(spec.dtype)))


def test_what_is_rounded_is_counted() -> None:
    number = weight(50, 70)
    codes, scales = quantised(number, (16, 32), torch.bfloat16)
    back = plain(codes, scales, (16, 32), torch.float32)
    ours = reader(number, (16, 32), torch.bfloat16)
    count = int((back != number.float()).sum())
    assert ours.counted() == {"w": Rounded(3500, count)} and 2000 < count < 3500
    other = pickle.loads(pickle.dumps(ours))
    other.read_into(whole(other.specs["w"]), np.empty((50, 70), np.uint8))
    fresh = reader(number, (16, 32), torch.bfloat16)
    fresh.take_over(other.hand_over())
    assert fresh._counted == ours.counted()


@pytest.mark.parametrize("block", [(128, 128), (8, 8)])
@pytest.mark.parametrize("scale", SCALES)
def test_quantising_what_was_dequantised_gives_the_bytes_back(scale: torch.dtype, block: tuple[int, int]) -> None:
    """By way of bfloat16: the largest number of a block comes back as 448 times its scale, or nearly.

    Where scales are powers of two, that of a block whose largest number became 224 comes back as half of it, and the
    numbers as twice of what they were: the same weights.
    """
    number = weight(512, 384, seed=3)
    codes, scales = quantised(number, block, scale)
    again = all_bits(reader(plain(codes, scales, block), block, scale))
    if scale != torch.float8_e8m0fnu:
        assert np.array_equal(again["w"], bits(codes)) and np.array_equal(again["s"], bits(scales))
        return
    back = [torch.from_numpy(again[name]).view(dtype) for name, dtype in (("w", codes.dtype), ("s", scale))]
    assert torch.equal(plain(back[0], back[1], block), plain(codes, scales, block))
    less = bits(scales).astype(int) - again["s"]
    assert set(np.unique(less)) <= {0, 1} and less.mean() < 0.1


def test_every_scale_that_bfloat16_weights_give_comes_back() -> None:
    """One block for each bfloat16 as its largest number; of float32 weights a tenth comes back one step off by way of
    bfloat16, and none by way of float32.
    """
    every = torch.arange(1 << 15).to(torch.uint16).view(torch.bfloat16)
    every = every[every.isfinite() & (every.float() > 1e-30) & (every.float() < 1e30)][:, None]
    between = torch.rand(20_000, 1, generator=torch.Generator().manual_seed(2)) + 1
    for scale in (torch.float32, torch.bfloat16):
        assert scales_off(every, scale, torch.bfloat16) == 0
    assert 0.08 < scales_off(between, torch.bfloat16, torch.bfloat16) / len(between) < 0.11
    assert scales_off(between, torch.bfloat16, torch.float32) == 0


def scales_off(number: torch.Tensor, scale: torch.dtype, by_way_of: torch.dtype) -> int:
    """How many scales are others after there and back, by at most one step."""
    first = all_bits(reader(number, (1, 1), scale))
    codes = torch.from_numpy(first["w"]).view(torch.float8_e4m3fn)
    width = first["s"].itemsize
    scales = torch.from_numpy(first["s"].view(f"i{width}")).view(scale)
    again = all_bits(reader(plain(codes, scales, (1, 1), by_way_of), (1, 1), scale))
    assert np.array_equal(again["w"], first["w"])
    steps = np.abs(again["s"].astype(np.int64) - first["s"].astype(np.int64))
    assert steps.max() <= 1
    return int(np.count_nonzero(steps))


def transformers_op(scale_fmt: str | None = None) -> object:
    fp8 = pytest.importorskip("transformers.integrations.finegrained_fp8")
    if not hasattr(fp8, "Fp8Quantize"):
        pytest.skip("transformers 5 has it")
    config = SimpleNamespace(weight_block_size=(128, 128), scale_fmt=scale_fmt)
    return fp8.Fp8Quantize(SimpleNamespace(quantization_config=config))


def test_powers_of_two_as_transformers_makes_them() -> None:
    """Stored as float32 by this torch or as exponents: their numbers are compared."""
    number = weight(256, 384, seed=7)
    theirs = transformers_op("ue8m0")._quantize_one("w.weight", number)  # type: ignore[attr-defined]
    for dtype in (torch.float32, torch.float8_e8m0fnu):
        found = all_bits(reader(number, (128, 128), dtype, power_of_two=True))
        assert np.array_equal(found["w"], bits(theirs["w.weight"]))
        scales = torch.from_numpy(found["s"].view(f"i{found['s'].itemsize}")).view(dtype)
        assert torch.equal(scales.float(), theirs["w.weight_scale_inv"].float())


def test_transformers_own_scales_differ_in_their_last_bit() -> None:
    """It multiplies by 448 / largest and stores the inverse of that: half of the scales, and few of the numbers, are
    another; each number by one step at most.
    """
    number = weight(1024, 1024, seed=11)
    theirs = transformers_op()._quantize_one("w.weight", number)  # type: ignore[attr-defined]
    found = all_bits(reader(number, (128, 128), torch.float32))
    steps = np.abs(found["s"].view(np.int32) - bits(theirs["w.weight_scale_inv"]).view(np.int32))
    assert steps.max() == 1 and 10 < np.count_nonzero(steps) < 60
    apart = found["w"].astype(int) - bits(theirs["w.weight"]).astype(int)
    assert 0 < np.count_nonzero(apart) < 0.001 * apart.size and np.abs(apart).max() == 1


def test_quantising_with_a_scale_that_is_rounded_afterwards_differs() -> None:
    """As some do with bfloat16 scales: the numbers fit another scale than the one beside them, and lie further off."""
    number = weight(1024, 1024, seed=13)
    codes, scales = quantised(number, (128, 128), torch.float32)
    stored = scales.bfloat16()
    found = all_bits(reader(number, (128, 128), torch.bfloat16))
    assert np.array_equal(found["s"], bits(stored))
    share = np.count_nonzero(found["w"] != bits(codes)) / codes.numel()
    assert 0.005 < share < 0.03
    ours = torch.from_numpy(found["w"]).view(torch.float8_e4m3fn)

    def off(made: torch.Tensor) -> float:
        return float((plain(made, stored, (128, 128), torch.float32) - number.float()).square().mean())

    assert off(ours) < off(codes)
