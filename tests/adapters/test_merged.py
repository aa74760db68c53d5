"""The Reader that merges: any box of a tensor is what the whole has there, and what it counts adds up."""

from __future__ import annotations

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch

from vlconv.converters.adapters import merged as merging
from vlconv.converters.adapters.adapter import Adapter, Pair
from vlconv.converters.adapters.merged import Changed, Merged
from vlconv.converters.tensors.spec import Box, TensorSpec, whole

RANK, SCALE = 5, 2**-8
SHAPE = (3, 14, 22)
"""Of experts, each [in, out] on the Hub: gate is the first half of the columns, up the other."""


class Tensors:
    """A Reader of torch's tensors."""

    def __init__(self, tensors: dict[str, torch.Tensor]) -> None:
        self.tensors = tensors
        kinds = {name: str(t.dtype).removeprefix("torch.") for name, t in tensors.items()}
        self.specs = {name: TensorSpec(name, tuple(t.shape), kinds[name]) for name, t in tensors.items()}

    def read_into(self, box: Box, out: Any) -> None:
        bits = self.tensors[box.name].view(torch.int16).numpy().view(np.uint16)
        out[...] = bits[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))]

    def finish(self) -> None: ...


def numbers(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).bfloat16()


@pytest.fixture
def merged(monkeypatch: pytest.MonkeyPatch) -> Merged:
    """Packed experts, of which the last one's gate has no adapter, a matrix, and a vector."""
    monkeypatch.setattr(merging, "TILE", 40)
    experts, inputs, half = SHAPE[0], SHAPE[1], SHAPE[2] // 2
    pairs, held = [], {}
    for e in range(experts):
        for part in range(2 - (e == experts - 1)):
            box = Box("experts", (e, 0, part * half), (1, inputs, half))
            pairs.append(Pair(f"{e}.{part}", box, True, f"a{e}{part}", f"b{e}{part}", RANK, SCALE * RANK))
            held |= {f"a{e}{part}": numbers(RANK, inputs), f"b{e}{part}": numbers(half, RANK)}
    pairs.append(Pair("matrix", Box("matrix", (0, 0), (9, 16)), False, "a", "b", RANK, SCALE * RANK))
    held |= {"a": numbers(RANK, 16), "b": numbers(9, RANK)}
    base = Tensors({"experts": numbers(*SHAPE), "matrix": numbers(9, 16), "vector": numbers(7)})
    return Merged(base, Adapter(Tensors(held), tuple(pairs), "as the test says"))


def read(reader: Any, box: Box) -> Any:
    out = np.empty(box.lengths, np.uint16)
    reader.read_into(box, out)
    return out


def expected(merged: Merged) -> dict[str, Any]:
    base: Any = merged.below[0]
    held: Any = merged.adapter.reader
    out = {name: t.clone() for name, t in base.tensors.items()}
    for pair in merged.adapter.pairs:
        at = tuple(slice(o, o + n) for o, n in zip(*pair.weight[1:], strict=True))
        a, b = held.tensors[pair.a].float(), held.tensors[pair.b].float()
        change = b[:, :1] * a[:1]
        for k in range(1, RANK):
            change = change + b[:, k : k + 1] * a[k : k + 1]
        change = change.T if pair.transpose else change
        out[pair.weight.name][at] = (change * SCALE + out[pair.weight.name][at].float()).bfloat16()
    return {name: t.view(torch.int16).numpy().view(np.uint16) for name, t in out.items()}


def test_any_box_is_what_the_whole_has_there(merged: Merged) -> None:
    wanted, dice = expected(merged), random.Random(7)
    for name, spec in merged.specs.items():
        assert np.array_equal(read(merged, whole(spec)), wanted[name])
        for _ in range(60):
            begin = tuple(dice.randrange(n) for n in spec.shape)
            lengths = tuple(dice.randint(1, n - o) for n, o in zip(spec.shape, begin, strict=True))
            at = tuple(slice(o, o + n) for o, n in zip(begin, lengths, strict=True))
            assert np.array_equal(read(merged, Box(name, begin, lengths)), wanted[name][at])
    base: Any = merged.below[0]
    assert not np.array_equal(wanted["experts"], base.tensors["experts"].view(torch.int16).numpy().view(np.uint16))


def test_counts_of_parts_and_of_other_processes_add_up(merged: Merged) -> None:
    for name in ("experts", "matrix"):
        read(merged, whole(merged.specs[name]))
    once = merged.counted()
    base: Any = merged.below[0]
    for name, bits in expected(merged).items():
        if name in once:
            before = base.tensors[name].view(torch.int16).numpy().view(np.uint16)
            assert once[name].changed == int((bits != before).sum())
    assert once["matrix"].elements == 9 * 16 and once["experts"].elements == 14 * 11 * 5
    assert 0 < once["experts"].changed < once["experts"].elements >= once["experts"].rounded
    here, there = merged.into({}), pickle.loads(pickle.dumps(merged.into({})))
    read(here, Box("matrix", (0, 0), (4, 16)))
    read(there, Box("matrix", (4, 0), (5, 16)))
    read(there, whole(merged.specs["experts"]))
    here.take_over(there.hand_over())
    assert here.counted() == once and there.hand_over() == {}


def test_what_was_not_read_is_read_for_the_count(merged: Merged, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merging, "RECOUNTED", 64)
    read(merged, Box("matrix", (0, 0), (4, 16)))
    fresh = merged.into({})
    for name in ("experts", "matrix"):
        read(fresh, whole(fresh.specs[name]))
    assert merged.counted() == fresh.counted() and isinstance(merged.counted()["matrix"], Changed)


def test_the_vector_is_as_it_was(merged: Merged) -> None:
    assert merged.names == ["experts", "matrix"] and "vector" not in merged.counted()
