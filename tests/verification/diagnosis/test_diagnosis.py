"""Each corruption is named, and no other; what was trained, and noise, is not misnamed."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from vlconv.converters.models.shared.config import ModelConfig
from vlconv.converters.report import Phase, Report, Silent
from vlconv.converters.tensors.mapped import prove
from vlconv.converters.tensors.rules import Table
from vlconv.converters.tensors.spec import Box
from vlconv.converters.verification.comparison.compare import Comparison, compare
from vlconv.converters.verification.diagnosis import permuted, remembered
from vlconv.converters.verification.diagnosis.diagnose import diagnosed, same_geometry
from vlconv.converters.verification.diagnosis.diagnosis import Diagnosis
from vlconv.converters.verification.diagnosis.passes import Passes
from vlconv.converters.verification.diagnosis.sample import probes
from vlconv.converters.verification.summary import describe_diagnoses

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


def explained(
    config: dict[str, Any], hf: Mapping[str, Any], other: Mapping[str, Any], passes: Passes | None = None
) -> list[Diagnosis]:
    found = model_for(config)
    a, b = Memory(dict(hf)), Memory(dict(other))
    return diagnosed(a, b, found.config(config), compare(a, b, 1, Silent()).differences, passes)


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


def test_several_threads_find_the_same_in_the_same_order() -> None:
    config, hf = model("qwen3_vl")
    names = ("QKV not de-interleaved", "gate and up swapped", "zeros", "a layer late", "trained much", "noise")
    cases = [(CORRUPTIONS[name], f"layers.{i % 4}.") for i, name in enumerate(names)]
    other = dict(hf)
    for case, layer in cases:
        changed = case.spoil(hf, config["text_config"], config["vision_config"])
        other |= {name: tensor for name, tensor in changed.items() if layer in name}
    assert explained(config, hf, other, Passes(5)) == explained(config, hf, other) != []


class Watch(Silent):
    """Remembers the bytes of each pass."""

    def __init__(self) -> None:
        self.told: list[list[tuple[int, int]]] = []

    def phase(self, phase: Phase) -> None:
        assert phase == Phase.EXPLAINING
        self.told.append([])

    def progress(self, done: int, total: int) -> None:
        self.told[-1].append((done, total))


def test_each_pass_tells_the_bytes_of_what_is_looked_at() -> None:
    """All that differ are held against arithmetic; noise, the only thing that stays, against all there is."""
    config, hf = model("qwen3_vl")
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    other = hf | CORRUPTIONS["zeros"].spoil(hf, config["text_config"], {}) | {name: corruptions.like(hf[name])}
    watch, nbytes = Watch(), hf[name].nbytes
    zeros = sum(t.nbytes for n, t in hf.items() if n.endswith("up_proj.weight"))
    assert {one.name for one in explained(config, hf, other, Passes(2, watch))} == {"arithmetic", "unrelated"}
    assert [told[-1] for told in watch.told] == [(n, n) for n in (nbytes + zeros, nbytes, nbytes, zeros)]


def test_nothing_is_told_where_nothing_differs() -> None:
    config, hf = model("qwen3_vl")
    watch = Watch()
    assert explained(config, hf, hf, Passes(2, watch)) == [] and watch.told == []


def test_what_is_held_of_matrices_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "ROOM", 1600)
    numbers = {f"t{i}": torch.arange(512, dtype=torch.bfloat16).view(2, 16, 16) + i for i in range(4)}
    numbers["large"] = torch.zeros(40, 40, dtype=torch.bfloat16)
    held = remembered.Remembered(Memory(numbers))
    for name in [*numbers, "t0", "t3", "t1"]:
        out = np.zeros((1, 3, 4) if name != "large" else (3, 4), np.uint16)
        box = Box(name, (1, 2, 5) if name != "large" else (2, 5), out.shape)
        held.read_into(box, out)
        assert np.array_equal(out, bits(numbers[name])[tuple(slice(o, o + n) for o, n in zip(*box[1:], strict=True))])
        assert sum(matrix.nbytes for matrix in held._held.values()) <= 1600
    assert [name for name, _ in held._held] == ["t3", "t0", "t1"]


def test_what_was_trained_too_is_named_and_not_called_exact() -> None:
    case = CORRUPTIONS["vision QKV per rank, TP 2 (Pai)"]
    config, hf = model("qwen3_vl")
    changed = case.spoil(hf, config["text_config"], config["vision_config"])
    other = {name: corruptions.trained(0.02)(tensor) for name, tensor in (hf | changed).items()}
    found = {one.name: one for one in explained(config, hf, other)}
    one = found["vision-qkv-tp2-as-flat"]
    assert sorted(one.tensors) == sorted(changed) and not one.exact and one.relative[1] < 0.05
    assert not {"qkv-groups-as-flat", "transposed", "unrelated"} & found.keys()


def test_whose_fault_it_was_is_told_where_it_is_known() -> None:
    whose = {case.named: FAULTS[case.named].known_of for case in CORRUPTIONS.values() if case.named in FAULTS}
    told = {name: words.partition("'s export")[0] for name, words in whose.items() if words}
    assert told == {
        "vision-qkv-tp2-as-flat": "Pai-Megatron-Patch",
        "gdn-tp2-as-flat": "Megatron-Bridge",
        "gdn-qkv-tp2-as-flat": "Megatron-Bridge",
        "gdn-conv-tp2-as-flat": "Megatron-Bridge",
    }
    _, hf, other, _ = spoiled("vision QKV per rank, TP 2 (Pai)")
    (one,) = explained(model("qwen3_vl")[0], hf, other)
    assert "issue 723" in one.known_of
    for rivals, said in (((), True), (("vision-qkv-tp4-as-flat",), False)):
        report = Report("verify", "different")
        describe_diagnoses(report, Comparison([], 1, 1, diagnoses=[replace(one, rivals=rivals)]))
        assert ("known of Pai" in report.told["diagnosis"]) == said


def test_two_names_of_one_permutation_are_no_doubt_where_it_was_trained_too() -> None:
    config, hf = model("qwen3")
    changed = CORRUPTIONS["gate and up per rank, TP 2"].spoil(hf, config, {})
    other = {name: corruptions.trained(0.02)(tensor) for name, tensor in (hf | changed).items()}
    one = next(one for one in explained(config, hf, other) if one.name == "gate-up-tp2-as-flat")
    assert sorted(one.tensors) == sorted(changed) and not one.exact


def test_what_was_trained_where_it_stands_is_held_against_no_permutation(monkeypatch: pytest.MonkeyPatch) -> None:
    config, hf = model("qwen3_vl")
    tried: list[object] = []
    monkeypatch.setattr(permuted, "_fitting", lambda *args: tried.append(args) or ([], []))
    (found,) = explained(config, hf, hf | CORRUPTIONS["trained much"].spoil(hf, config["text_config"], {}))
    assert found.name == "trained" and not tried


def test_numbers_that_are_none_are_not_called_zero() -> None:
    config, hf = model("qwen3_vl")
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    said = {number: explained(config, hf, hf | {name: torch.full_like(hf[name], number)}) for number in (0.0, -2.5)}
    assert [[one.says for one in found] for found in said.values()] == [["every number is 0"], ["every number is -2.5"]]
    (none,) = explained(config, hf, hf | {name: torch.full_like(hf[name], float("nan"))})
    assert "every number" not in none.says


def test_many_that_are_nan_are_called_so() -> None:
    config, hf = model("qwen3_vl")
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    few = hf[name].clone()
    few[5, 5] = float("nan")
    for spoiled in (few, torch.full_like(few, float("nan"))):
        assert [one.name for one in explained(config, hf, hf | {name: spoiled})] == ["nan"]
        assert [one.name for one in explained(config, hf | {name: spoiled}, hf)] == ["nan"]


def test_a_matrix_and_one_is_no_norm() -> None:
    config, hf = model("qwen3_vl")
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    (found,) = explained(config, hf, hf | {name: (hf[name].float() + 1).bfloat16()})
    assert found.name != "arithmetic"


def test_dtypes_are_told_by_what_was_rounded() -> None:
    config, hf = model("qwen3_vl")
    name = "model.language_model.layers.1.mlp.down_proj.weight"
    wide = hf[name].float() + 1e-5
    for a, b, says in (
        ({name: wide}, {name: wide.bfloat16()}, "A's numbers, rounded to bfloat16"),
        ({name: wide.bfloat16()}, {name: wide}, "A's are B's numbers, rounded to bfloat16"),
    ):
        assert [one.says for one in explained(config, hf | a, hf | b)] == [says]


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


SAME_ORDERS = {
    "one query group": ("qwen2_5_vl", (("num_key_value_heads", 1),)),
    "one head to a group, gated": ("qwen3_5", (("num_key_value_heads", 8), ("num_attention_heads", 8))),
    "one key head": ("qwen3_5", (("linear_num_key_heads", 1),)),
    "one key head, fused": ("qwen3_next", (("linear_num_key_heads", 1),)),
}
"""Sizes for which two orders of rows are one."""


@pytest.mark.parametrize("sizes", SAME_ORDERS)
def test_two_orders_that_are_one_are_no_fault(sizes: str) -> None:
    name, text = SAME_ORDERS[sizes]
    config = tiny_config(name, text=dict(text))
    for fault in FAULTS.values():
        for group in list(fault.groups(model_for(config).config(config)))[:1]:
            moved = normal(group.build())
            assert any(copy.left != copy.right or copy.transpose for copy in moved), fault.name


def test_biases_that_were_trained_are_no_fault_s() -> None:
    """In any order they are near where they stand; so are those of one query group in what is no other order."""
    config, hf = model("qwen2_5_vl", (("num_key_value_heads", 1),))
    biases = {name: t for name, t in hf.items() if name.endswith("_proj.bias")}
    alike = {name: (1 + 0.1 * t.float() / t.float().std()).bfloat16() for name, t in biases.items()}
    for before in (biases, alike):
        after = {name: corruptions.trained(0.1)(t) for name, t in before.items()}
        assert {one.name for one in explained(config, hf | before, hf | after)} == {"trained"}


def test_nor_are_those_that_are_nearly_equal_exchanged() -> None:
    """Gate and up of the tower: exchanged they are as near as where they stand, and no other order is."""
    config, hf = model("qwen2_5_vl")
    gates = [name for name in hf if name.endswith("mlp.gate_proj.bias")]
    before = hf | {name.replace("gate_proj", "up_proj"): hf[name] for name in gates}
    after = before | {name: corruptions.trained(0.1)(hf[name]) for name in gates}
    assert gates and {one.name for one in explained(config, before, after)} == {"trained"}


def test_a_reshaping_is_no_exchange_of_rows() -> None:
    config = tiny_config("qwen3_vl_moe")
    turned, swapped = (
        next(iter(FAULTS[name].groups(model_for(config).config(config))))
        for name in ("experts-untransposed", "experts-swapped")
    )
    assert turned.names == swapped.names and turned.moves_as(turned) and swapped.moves_as(swapped)
    assert not turned.moves_as(swapped) and not swapped.moves_as(turned)


def test_permutations_are_tried_where_both_sides_have_one_geometry() -> None:
    def sizes(**text: Any) -> ModelConfig:
        config = tiny_config("qwen3_vl", text=text)
        return model_for(config).config(config)

    tied = tiny_config("qwen3_vl", tied=True)
    assert same_geometry(sizes(), sizes(vocab_size=384)) and same_geometry(sizes(), model_for(tied).config(tied))
    assert not same_geometry(sizes(), sizes(num_key_value_heads=2))


def test_small_queries_beside_large_keys_are_seen_to_have_moved() -> None:
    case = CORRUPTIONS["gated: ms-swift's for Megatron-core's"]
    config, hf = model(case.model, case.text)
    hf |= {name: t * 16 for name, t in hf.items() if name.endswith(("k_proj.weight", "v_proj.weight"))}
    changed = case.spoil(hf, config["text_config"], {})
    (found,) = explained(config, hf, hf | changed)
    assert (found.name, found.exact) == (case.named, True)


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
