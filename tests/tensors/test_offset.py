"""A number added on the way: the bits are torch's, and what is counted as rounded is what exact fractions say."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from vlconv.converters.errors import MismatchError
from vlconv.converters.tensors.counting import Rounded, all_counts
from vlconv.converters.tensors.dtypes import narrowed
from vlconv.converters.tensors.offset import Offset
from vlconv.converters.tensors.spec import Box, TensorSpec, whole

NUMPY = {"bfloat16": "int16", "float16": "int16", "float32": "int32", "float64": "int64"}
ALL_BF16 = np.arange(1 << 16, dtype=np.uint16).reshape(256, 256)
ODD = [0.0, -0.0, 1.0, -1.0, 0.3, 2**-8, 2**-8 + 2**-15, -(2**-9), 1e-30, -1e-30, 3.0e38, 65504.0, float("inf")]


class Memory:
    """A Reader of torch tensors."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors
        self.finished = 0
        self.specs = {n: TensorSpec(n, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for n, t in tensors.items()}

    def read_into(self, box: Box, out: Any) -> None:
        at = tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))
        found = self.tensors[box.name][at].contiguous()
        dtype = NUMPY[self.specs[box.name].dtype]
        out[...] = found.view(getattr(torch, dtype)).numpy().view(f"u{dtype}")

    def finish(self) -> None:
        self.finished += 1


def bf16() -> torch.Tensor:
    """Every bit pattern."""
    return torch.from_numpy(ALL_BF16.view(np.int16).copy()).view(torch.bfloat16)


def read(reader: Any, name: str) -> torch.Tensor:
    spec = reader.specs[name]
    out = np.empty(spec.shape, f"u{NUMPY[spec.dtype]}")
    reader.read_into(whole(spec), out)
    return torch.from_numpy(out.view(NUMPY[spec.dtype])).view(getattr(torch, spec.dtype))


def same(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Bit for bit, but for the payload of a NaN."""
    bits = getattr(torch, NUMPY[str(a.dtype).removeprefix("torch.")])
    return a.dtype == b.dtype and bool(((a.view(bits) == b.view(bits)) | (a.isnan() & b.isnan())).all())


@pytest.mark.parametrize("amount", [1.0, -1.0])
@pytest.mark.parametrize("target", ["bfloat16", "float32"])
def test_every_bf16_pattern_as_torch_adds(amount: float, target: str) -> None:
    found = read(Offset(Memory({"a": bf16()}), ["a"], amount, {"a": target}), "a")
    assert same(found, (bf16().float() + amount).to(getattr(torch, target)))
    assert torch.equal(found.isnan(), bf16().isnan())


@pytest.mark.parametrize("amount", [1.0, -1.0])
def test_every_bf16_pattern_is_counted_by_fractions(amount: float) -> None:
    """Rounded is what does not come back: result - amount is another number than the source."""
    source = bf16()
    step = Offset(Memory({"a": source}), ["a"], amount)
    result = read(step, "a")
    finite = source.isfinite()
    pairs = zip(source[finite].double().tolist(), result[finite].double().tolist(), strict=True)
    rounded = sum(Fraction(y) - Fraction(amount) != Fraction(x) for x, y in pairs)
    assert 0 < rounded < finite.sum()
    assert step.counted() == {"a": Rounded(1 << 16, rounded)}


def test_what_a_released_norm_holds_comes_back() -> None:
    """w - 1 is exact for every w in [0.5, 2]."""
    norm = bf16()[(bf16() >= 0.5) & (bf16() <= 2)]
    there = Offset(Memory({"a": norm}), ["a"], -1.0)
    back = Offset(there, ["a"], 1.0)
    assert same(read(back, "a"), norm)
    assert there.counted()["a"] == back.counted()["a"] == Rounded(257, 0)
    near = torch.tensor([0.375 + 2**-9, 0.25], dtype=torch.bfloat16)  # the first has a bit too many below one
    assert Offset(Memory({"a": near}), ["a"], -1.0).counted()["a"] == Rounded(2, 1)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("amount", [1.0, -1.0])
def test_other_dtypes_as_torch_adds(dtype: str, amount: float) -> None:
    kind = getattr(torch, dtype)
    source = torch.cat([torch.tensor(ODD), torch.randn(5000)]).to(kind)
    step = Offset(Memory({"a": source}), ["a"], amount)
    result = read(step, "a")
    wide = source if dtype == "float64" else source.float()
    assert same(result, (wide + amount).to(kind))
    finite = source.isfinite()
    pairs = zip(source[finite].double().tolist(), result[finite].double().tolist(), strict=True)
    assert step.counted()["a"].rounded == sum(Fraction(y) - Fraction(amount) != Fraction(x) for x, y in pairs)


def test_dtypes_alone() -> None:
    """Widening is exact; narrowing is rounded as torch rounds, and counted; what is not named passes."""
    wide = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    memory = Memory({"narrow": wide, "wide": bf16(), "other": bf16(), "float64": wide.double()})
    step = Offset(memory, [], 1.0, {"narrow": "bfloat16", "wide": "float32", "float64": "float16"})
    assert same(read(step, "narrow"), wide.to(torch.bfloat16))
    assert same(read(step, "wide"), bf16().float())
    assert same(read(step, "float64"), wide.double().to(torch.float16))
    assert torch.equal(read(step, "other").view(torch.int16), bf16().view(torch.int16))  # payloads of NaN, too
    counted = step.counted()
    assert list(counted) == step.computed == ["narrow", "wide", "float64"]
    assert counted["wide"] == Rounded(1 << 16, 0)
    assert counted["narrow"].rounded == int((wide.to(torch.bfloat16).float() != wide).sum()) > 900


def test_a_float64_is_rounded_once() -> None:
    """Just above the middle of two bfloat16: by way of float32 it would be rounded down."""
    value = 1 + 2**-8 + 2**-40
    assert torch.tensor(value, dtype=torch.float64).float().bfloat16() == 1.0
    for sign in (1, -1):
        bits = narrowed(np.array([sign * value, sign * (1 + 2**-8 - 2**-40)]), "bfloat16")
        assert list((bits.astype(np.uint32) << 16).view(np.float32)) == [sign * (1 + 2**-7), sign * 1.0]


def test_what_overflows_is_refused() -> None:
    step = Offset(Memory({"a": torch.tensor([3.0e38])}), [], 1.0, {"a": "float16"})
    with pytest.raises(MismatchError, match="a: holds numbers too large for float16"):
        read(step, "a")
    assert read(Offset(Memory({"a": torch.tensor([float("inf")])}), [], 1.0, {"a": "float16"}), "a").isinf().all()


def test_boxes_from_many_threads_are_counted_once_each() -> None:
    step = Offset(Memory({"a": bf16()}), ["a"], 1.0)
    out = np.empty((256, 256), np.uint16)

    def row(at: int) -> None:
        step.read_into(Box("a", (at, 0), (1, 256)), out[at : at + 1])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(row, range(256)))
    assert step.counted() == Offset(Memory({"a": bf16()}), ["a"], 1.0).counted()
    assert step.counted()["a"].elements == 1 << 16


def test_what_was_read_in_part_is_counted_as_a_whole() -> None:
    """As after a run that went on with an ended one."""
    memory = Memory({"a": bf16(), "b": bf16()[:4]})
    step = Offset(memory, ["a", "b"], 1.0)
    step.read_into(Box("a", (0, 0), (3, 256)), np.empty((3, 256), np.uint16))
    assert {name: count.elements for name, count in all_counts([step]).items()} == {"a": 1 << 16, "b": 1024}
    step.finish()
    assert memory.finished == 1
