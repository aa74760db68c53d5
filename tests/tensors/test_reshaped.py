"""Matrices read in another shape, and experts' turned ones: as numpy reshapes and transposes them."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest
import torch
from memory import Memory
from tiny import tiny_config

from vlconv.converters.errors import CorruptError
from vlconv.converters.layouts.faults import experts
from vlconv.converters.layouts.faults.known import FAULTS
from vlconv.converters.models import model_for
from vlconv.converters.tensors.reshaped import Reshaped
from vlconv.converters.tensors.spec import Box, Reader, whole

NAME = "model.language_model.layers.0.mlp.experts.gate_up_proj"
NUMBERS = np.random.default_rng(0).integers(0, 1 << 16, (3, 4, 6), dtype=np.uint16)


def bfloat16(numbers: np.ndarray, name: str = NAME) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(numbers.view(np.int16)).view(torch.bfloat16)}


def held(numbers: np.ndarray, name: str = NAME) -> Memory:
    return Memory(bfloat16(numbers, name))


def read(reader: Reader, box: Box) -> np.ndarray:
    out = np.zeros(box.lengths, np.uint16)
    reader.read_into(box, out)
    return out


def test_every_box_is_that_of_the_reshaped_matrix() -> None:
    made = Reshaped(held(NUMBERS), {NAME: (3, 8, 3)})
    want = NUMBERS.reshape(3, 8, 3)
    for begin in product(range(3), range(8), range(3)):
        for end in product(*(range(b + 1, n + 1) for b, n in zip(begin, want.shape, strict=True))):
            box = Box(NAME, begin, tuple(e - b for b, e in zip(begin, end, strict=True)))
            assert np.array_equal(read(made, box), want[tuple(map(slice, begin, end))])


def test_each_thread_holds_a_matrix_of_its_own() -> None:
    class Counting(Memory):
        reads = 0

        def read_into(self, box: Box, out: np.ndarray) -> None:
            self.reads += 1
            super().read_into(box, out)

    below = Counting(bfloat16(NUMBERS))
    made = Reshaped(below, {NAME: (3, 8, 3)})
    first, second = (Box(NAME, (e, 1, 0), (1, 2, 2)) for e in (0, 1))
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(1) as other:
        found = [crew.submit(read, made, box).result() for crew, box in [(one, first), (other, second), (one, first)]]
    assert np.array_equal(found[0], found[2]) and not np.array_equal(found[0], found[1])
    assert below.reads == 2


def test_in_another_process_it_is_the_same() -> None:
    """As a repair in several processes needs it."""
    made = Reshaped(held(NUMBERS), {NAME: (3, 8, 3)})
    box = whole(made.specs[NAME])
    read(made, box)
    assert np.array_equal(read(pickle.loads(pickle.dumps(made)), box), NUMBERS.reshape(3, 8, 3))


def test_a_matrix_that_could_not_be_read_is_not_taken_for_the_last_one() -> None:
    class Breaking(Memory):
        broken = False

        def read_into(self, box: Box, out: np.ndarray) -> None:
            if self.broken:
                raise CorruptError("it is", "so")
            super().read_into(box, out)

    below = Breaking(bfloat16(NUMBERS))
    made = Reshaped(below, {NAME: (3, 8, 3)})
    first, second = (Box(NAME, (e, 0, 0), (1, 8, 3)) for e in (0, 1))
    read(made, first)
    below.broken = True
    for _ in range(2):
        with pytest.raises(CorruptError):
            read(made, second)
    below.broken = False
    assert np.array_equal(read(made, first)[0], NUMBERS[0].reshape(8, 3))


@pytest.mark.parametrize("name", ["qwen3_vl_moe", "qwen3_5_moe"])
def test_experts_turned_are_what_numpy_makes_and_undone_what_they_were(name: str) -> None:
    config = model_for(tiny_config(name)).config(tiny_config(name))
    for group in list(FAULTS["experts-untransposed"].groups(config))[:2]:
        assert group.turned
        good = np.random.default_rng(1).integers(0, 1 << 16, group.turned, dtype=np.uint16)
        written = np.ascontiguousarray(good.transpose(0, 2, 1)).reshape(good.shape)
        made, undone = (held(one, group.names[0]) for one in (good, written))
        box = whole(made.specs[group.names[0]])
        assert np.array_equal(read(group.made(made), box), written)
        assert np.array_equal(read(group.undone(undone), box), good)
        part = Box(box.name, (1, 3, 5), (2, 7, 9))
        assert np.array_equal(read(group.undone(undone), part), good[1:3, 3:10, 5:14])


def test_a_matrix_too_large_to_be_held_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    config = model_for(tiny_config("qwen3_vl_moe")).config(tiny_config("qwen3_vl_moe"))
    monkeypatch.setattr(experts, "LARGEST", 64 * 24)
    left = [group.names[0] for group in FAULTS["experts-untransposed"].groups(config)]
    assert all(name.endswith("down_proj") for name in left)
