"""Each corruption is named, and no other; what was trained, and noise, is not misnamed."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from memory import Memory, bits
from tiny import tiny_config, tiny_shapes, tiny_weights

from vlconv.converters.layouts.faults.fault import normal
from vlconv.converters.layouts.faults.known import FAULTS
from vlconv.converters.models import model_for
from vlconv.converters.report import Silent
from vlconv.converters.tensors.mapped import prove
from vlconv.converters.tensors.rules import Table
from vlconv.converters.verification.compare import compare
from vlconv.converters.verification.diagnosis.diagnose import diagnosed
from vlconv.converters.verification.diagnosis.diagnosis import Diagnosis
from vlconv.converters.verification.diagnosis.sample import probes

SAMPLED = 2


def beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"diagnosis_{name}", Path(__file__).parent / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


corruptions = beside("corruptions")
CORRUPTIONS, TWELVE = corruptions.CORRUPTIONS, corruptions.TWELVE


def model(name: str, text: tuple[tuple[str, Any], ...] = ()) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    config = tiny_config(name, text=dict(text) or None)
    return config, tiny_weights(tiny_shapes(config), fine=True)


def explained(config: dict[str, Any], hf: Mapping[str, Any], other: Mapping[str, Any]) -> list[Diagnosis]:
    found = model_for(config)
    a, b = Memory(hf), Memory(other)
    return diagnosed(a, b, found.config(config), compare(a, b, 1, Silent()).differences)


def spoiled(name: str) -> tuple[dict[str, Any], dict[str, torch.Tensor], dict[str, torch.Tensor], set[str]]:
    case = CORRUPTIONS[name]
    config, hf = model(case.model, case.text)
    changed = case.spoil(hf, config.get("text_config", config), config.get("vision_config", {}))
    other = hf | changed
    return config, hf, other, {n for n in hf if not np.array_equal(bits(hf[n]), bits(other[n]))}


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_it_is_named_and_nothing_else_is(name: str) -> None:
    config, hf, other, changed = spoiled(name)
    found = explained(config, hf, other)
    assert changed
    assert {one.name for one in found} == {CORRUPTIONS[name].named}, found
    assert sorted(n for one in found for n in one.tensors) == sorted(changed)
    assert all(not one.rivals for one in found)


def test_what_was_trained_too_is_named_and_not_called_exact() -> None:
    case = CORRUPTIONS["vision QKV per rank, TP 2 (Pai)"]
    config, hf = model("qwen3_vl")
    changed = case.spoil(hf, config["text_config"], config["vision_config"])
    other = {name: corruptions.trained(0.02)(tensor) for name, tensor in (hf | changed).items()}
    found = {one.name: one for one in explained(config, hf, other)}
    one = found["vision-qkv-tp2-as-flat"]
    assert sorted(one.tensors) == sorted(changed) and not one.exact and one.relative[1] < 0.05
    assert not {"qkv-groups-as-flat", "transposed", "unrelated"} & found.keys()


def test_two_faults_of_one_model_are_told_apart() -> None:
    config, hf = model("qwen3_vl")
    both = [CORRUPTIONS[name] for name in ("QKV not de-interleaved", "gate and up swapped")]
    parts = [case.spoil(hf, config["text_config"], config["vision_config"]) for case in both]
    found = explained(config, hf, hf | parts[0] | parts[1])
    assert {one.name: sorted(one.tensors) for one in found} == {
        case.named: sorted(part) for case, part in zip(both, parts, strict=True)
    }


def test_one_layer_alone() -> None:
    config, hf = model("qwen3_vl")
    case = CORRUPTIONS["QKV not de-interleaved"]
    changed = case.spoil(hf, config["text_config"], {})
    (found,) = explained(config, hf, hf | {n: t for n, t in changed.items() if ".layers.2." in n})
    assert (found.name, found.exact, len(found.tensors), found.concerns) == ("qkv-groups-as-flat", True, 3, 12)


def test_turned_round_it_is_the_other_side_that_is_said_to_be_wrong() -> None:
    config, hf, other, _ = spoiled("experts not transposed")
    (found,) = explained(config, other, hf)
    assert (found.name, found.of, found.exact) == ("experts-untransposed", "B", True)


@pytest.mark.parametrize("name", sorted({case.model for case in CORRUPTIONS.values()}))
def test_every_fault_moves_all_elements_and_leaves_none_where_all_were(name: str) -> None:
    """Each is proven as a mapping is; several names of one permutation are the few that must be."""
    config, hf = model(name, TWELVE if "moe" in name else ())
    integers = model_for(config).config(config)
    alike = set()
    for fault in FAULTS.values():
        for group in list(fault.groups(integers))[:1]:
            made = Table(group.build(), [])
            prove(made)
            assert made.left() == made.right() == {n: tuple(hf[n].shape) for n in group.names}
            moved = tuple(normal(made.copies))
            assert any(copy.left != copy.right or copy.transpose for copy in moved), fault.name
            alike |= {(group.names, moved)} if (group.names, moved) not in alike else {fault.name}
    assert {n for n in alike if isinstance(n, str)} <= {"gate-up-flat-as-tp2", "vision-gate-up-flat-as-tp2"}


def test_one_number_off_and_it_is_not_exact() -> None:
    """A few places are not enough: every element is held against what the fault makes."""
    config, hf = model("qwen3_vl", (("intermediate_size", 640), ("hidden_size", 128)))
    name = "model.language_model.layers.1.mlp.gate_proj.weight"
    changed = CORRUPTIONS["gate and up swapped"].spoil(hf, config["text_config"], {})
    changed[name] = changed[name].clone()
    where = 320  # a row that no probe reads
    changed[name][where, 5] += 1.0
    assert not any(box.offsets[0] <= where < box.offsets[0] + box.lengths[0] for box in probes(Memory(hf).specs[name]))
    found = explained(config, hf, hf | changed)
    assert [(one.name, one.exact, len(one.tensors)) for one in found] == [
        ("gate-up-swapped", True, 6),
        ("gate-up-swapped", False, 2),
    ]


def test_what_is_far_off_and_yet_alike_is_not_called_noise() -> None:
    config, hf = model("qwen3_vl")
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    (found,) = explained(config, hf, hf | {name: corruptions.trained(1.0)(hf[name])})
    assert found.name == "other" and found.relative[0] == pytest.approx(1.0, rel=0.1)


def table() -> Iterator[str]:
    """Corruption made x diagnosis given, a line for each."""
    for name in CORRUPTIONS:
        found = Counter(
            {f"{d.name}{', exactly' if d.exact else ''}": len(d.tensors) for d in explained(*spoiled(name)[:3])}
        )
        yield f"{name} | {', '.join(f'{count} x {d}' for d, count in found.items())}"


if __name__ == "__main__":
    print(*table(), sep="\n")
