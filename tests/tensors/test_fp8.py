"""FP8 numbers are torch's: every code, and every bfloat16 and many a float32 on its way to one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from fp8 import power_above

from vlconv.converters.tensors.dtypes import storage, widen
from vlconv.converters.tensors.fp8.codes import encoded, scale_numbers, stored_scales, table

FP8 = torch.float8_e4m3fn


def as_torch(number: torch.Tensor) -> np.ndarray:
    """torch's own cast of what is in range."""
    return number.clamp(-448, 448).to(FP8).view(torch.uint8).numpy()


def alike(ours: np.ndarray, theirs: np.ndarray, number: torch.Tensor) -> bool:
    """Bit for bit, but for the sign of a NaN."""
    nan = number.isnan().numpy()
    return bool((ours == theirs)[~nan].all() and (ours[nan] & 0x7F == 0x7F).all())


def test_every_code() -> None:
    theirs = torch.arange(256, dtype=torch.uint8).view(FP8).float()
    assert np.array_equal(table(), theirs.numpy(), equal_nan=True)
    assert np.array_equal(np.signbit(table()), theirs.signbit().numpy())
    assert alike(encoded(table()), np.arange(256, dtype=np.uint8), theirs)


def test_every_bfloat16() -> None:
    number = torch.arange(1 << 16).to(torch.uint16).view(torch.bfloat16).float()
    assert alike(encoded(number.numpy()), as_torch(number), number)


def test_halfway_between_two_numbers_and_beside_it() -> None:
    """The even one is taken; one float32 more or less decides."""
    finite = torch.arange(127, dtype=torch.uint8).view(FP8).double()
    middle = ((finite[1:] + finite[:-1]) / 2).float()
    assert torch.equal(middle.double(), (finite[1:] + finite[:-1]) / 2)
    for number in (middle, torch.nextafter(middle, torch.tensor(0.0)), torch.nextafter(middle, torch.tensor(1e9))):
        both = torch.cat([number, -number])
        assert alike(encoded(both.numpy()), as_torch(both), both)
    assert (encoded(middle.numpy()) & 1 == 0).all()


def test_random_numbers_of_every_size() -> None:
    number = torch.randint(-(1 << 31), 1 << 31, (1 << 20,), generator=torch.Generator().manual_seed(3))
    number = number.to(torch.int32).view(torch.float32)
    small = torch.randn(1 << 18, generator=torch.Generator().manual_seed(4)) * 0.02
    for one in (number, small, 300 * small / 0.02):
        assert alike(encoded(one.numpy()), as_torch(one), one)


@pytest.mark.parametrize("dtype", ["float8_e8m0fnu", "float8_e5m2", "float8_e4m3fn"])
def test_every_number_of_eight_bits(dtype: str) -> None:
    bits = torch.arange(256, dtype=torch.uint8)
    theirs = bits.view(getattr(torch, dtype)).float().numpy()
    for found in (scale_numbers(bits.numpy(), dtype), widen(bits.numpy(), dtype, "float64")):
        assert np.array_equal(found, theirs, equal_nan=True)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float8_e8m0fnu"])
def test_the_scale_of_a_block(dtype: str) -> None:
    """Rounded as torch rounds; a power of two is never smaller; 1 of a block of zeros, and of one too small."""
    largest = torch.rand(10_000, generator=torch.Generator().manual_seed(5)) * torch.exp2(
        torch.arange(10_000) % 60 - 40
    )
    largest[:4] = torch.tensor([448.0, 896.0, 224.0, 448.0 * 2**-20])
    theirs = power_above(largest / 448) if dtype == "float8_e8m0fnu" else (largest / 448).to(getattr(torch, dtype))
    ours = stored_scales(largest.numpy(), dtype)
    assert ours.dtype == storage(dtype)
    assert np.array_equal(ours, theirs.view(getattr(torch, storage(dtype))).numpy())
    assert (scale_numbers(stored_scales(np.float32([0.0]), dtype), dtype) == 1).all()
    if dtype == "float8_e8m0fnu":
        assert (scale_numbers(ours, dtype) * 448 >= largest.numpy()).all()
