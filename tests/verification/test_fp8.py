"""verify of FP8 sides: by what they are as numbers, by the rule to the bit, and how far off where it was another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fp8 import (
    FP8,
    Tensors,
    fine_grained,
    is_linear,
    one_by_one,
    plain,
    plain_model,
    quantised_model,
    tiny_fp8,
    write_fp8,
)
from tiny import tiny_config, write_tiny_hf, write_weights
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import Hf2McoreOptions, NotComparable, VerifyOptions, hf2mcore, verify

BLOCK = (32, 16)
STATED = fine_grained(BLOCK, ["lm_head", "model.visual"])
Q = "model.language_model.layers.2.self_attn.q_proj.weight"
DOWN = "model.language_model.layers.1.mlp.down_proj.weight"


def document(*args: object, code: int = 0) -> Any:
    ran = CliRunner().invoke(app, ["verify", *map(str, args), "--json"], prog_name="vlconv", env={"COLUMNS": "200"})
    assert ran.exit_code == code, ran.output
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Tensors]:
    folder = tmp_path_factory.mktemp("original") / "hf"
    return folder, write_tiny_hf(folder, tiny_config(), seed=9)


def fp8_of(folder: Path, tensors: Tensors, dtype: torch.dtype = torch.bfloat16) -> Tensors:
    return write_fp8(folder, tiny_config(), quantised_model(tensors, STATED, dtype), STATED)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float8_e8m0fnu])
def test_made_of_it_by_rule(tmp_path: Path, original: tuple[Path, Tensors], dtype: torch.dtype) -> None:
    """Either way round, and against a checkpoint that was made of the same."""
    folder, tensors = original
    fp8_of(tmp_path / "fp8", tensors, dtype)
    hf2mcore(folder, tmp_path / "mcore")
    for pair in ((folder, tmp_path / "fp8"), (tmp_path / "fp8", folder), (tmp_path / "mcore", tmp_path / "fp8")):
        found = document(*pair)
        assert found["status"] == "same" and not found["differences"]
        assert sorted(found["by_fp8_rule"]) == sorted(filter(is_linear, tensors))
    assert "28 of them FP8 by rule, the others bit for bit" in verify(folder, tmp_path / "fp8").result


@pytest.mark.parametrize(("kind", "apart"), [("qwen3_5_moe", True), ("qwen3_vl_moe", False)])
def test_experts_in_other_forms_on_either_side(tmp_path: Path, kind: str, apart: bool) -> None:
    tensors = write_tiny_hf(tmp_path / "hf", tiny_config(kind), delta_dtype="bfloat16")
    made = quantised_model(one_by_one(tensors) if apart else tensors, STATED)
    write_fp8(tmp_path / "fp8", tiny_config(kind), made, STATED)
    found = verify(tmp_path / "hf", tmp_path / "fp8")
    assert found.status == "same" and sorted(found.data["by_fp8_rule"]) == sorted(filter(is_linear, tensors))
    name = next(name for name, t in made.items() if t.dtype == FP8 and ".experts." in name)
    made[name].view(torch.uint8)[..., 3, 5] ^= 1
    write_weights(tmp_path / "fp8", made)
    found = verify(tmp_path / "hf", tmp_path / "fp8")
    assert [d.tensor.rpartition(".experts.")[0] for d in found.differences] == [name.rpartition(".experts.")[0]]


def relative(codes: torch.Tensor, scales: torch.Tensor, number: torch.Tensor) -> float:
    """The largest error, relative to the number or the least normal one."""
    wide = plain(torch.ones_like(codes.float()).to(FP8), scales, BLOCK, torch.float64)
    off = (plain(codes, scales, BLOCK, torch.float64) - number.double()).abs()
    return float((off / torch.maximum(number.double().abs(), wide / 64)).max())


def test_how_far_it_is_off(tmp_path: Path, original: tuple[Path, Tensors]) -> None:
    """One code, one scale, and a tensor of another quantiser; all else is equal by rule."""
    folder, tensors = original
    made = fp8_of(tmp_path / "fp8", tensors)
    made[Q].view(torch.uint8)[5, 7] ^= 8  # an exponent
    made[f"{DOWN}_scale_inv"][1, 2] *= 1.0078125
    write_weights(tmp_path / "fp8", made)
    report = verify(folder, tmp_path / "fp8")
    assert report.status == "different" and {d.tensor for d in report.differences} == {Q, DOWN}
    assert len(report.data["by_fp8_rule"]) == 26
    for difference in report.differences:
        name = difference.tensor
        error = relative(made[name], made[f"{name}_scale_inv"], tensors[name])
        assert f"worst relative error {error:.4g}; rounding to FP8 makes at most 0.0625" == difference.note
        assert (error > 0.3) == (name == Q)
    document(folder, tmp_path / "fp8", code=1)


def test_of_another_quantiser(tmp_path: Path, original: tuple[Path, Tensors]) -> None:
    """One that rounds the scale after it was used: not by rule, and within half a step of FP8, or hardly beyond."""
    folder, tensors = original
    made = quantised_model(tensors, STATED, torch.float32)
    made = {name: t.bfloat16() if name.endswith("_scale_inv") else t for name, t in made.items()}
    write_fp8(tmp_path / "fp8", tiny_config(), made, STATED)
    report = verify(folder, tmp_path / "fp8")
    assert report.status == "different" and len(report.differences) > 20
    worst = [float(d.note.split()[3].rstrip(";")) for d in report.differences]
    assert 0.06 < max(worst) < 0.07


def test_a_number_that_fp8_has_no_place_for(tmp_path: Path, original: tuple[Path, Tensors]) -> None:
    _, tensors = original
    fp8_of(tmp_path / "fp8", tensors)
    spoiled = dict(tensors)
    spoiled[Q] = tensors[Q].clone()
    spoiled[Q][0, 0] = float("nan")
    write_tiny_hf(tmp_path / "hf", tiny_config(), tensors=spoiled)
    report = verify(tmp_path / "hf", tmp_path / "fp8")
    assert report.status == "different" and Q in {d.tensor for d in report.differences}


def test_against_float32(tmp_path: Path) -> None:
    """Then it is dequantised to float32: nothing is rounded that the other side would not have."""
    tiny_fp8(tmp_path / "fp8")
    hf2mcore(tmp_path / "fp8", tmp_path / "wide", Hf2McoreOptions(dtype="float32"))
    assert verify(tmp_path / "fp8", tmp_path / "wide", VerifyOptions(values=True)).status == "same"
    hf2mcore(tmp_path / "fp8", tmp_path / "narrow")
    assert verify(tmp_path / "narrow", tmp_path / "wide", VerifyOptions(values=True)).status == "different"


def test_two_fp8_sides(tmp_path: Path, original: tuple[Path, Tensors]) -> None:
    """By their exact numbers: as bfloat16 these two would be the same."""
    _, tensors = original
    made = fp8_of(tmp_path / "a", tensors, torch.float32)
    fp8_of(tmp_path / "b", tensors, torch.float32)
    assert verify(tmp_path / "a", tmp_path / "b").status == "same"
    other = dict(made)
    scale = f"{Q}_scale_inv"
    other[scale] = made[scale].clone()
    other[scale][0, 0] = torch.nextafter(made[scale][0, 0], torch.tensor(1.0))
    assert torch.equal(plain_model(other, STATED)[Q], plain_model(made, STATED)[Q])
    write_weights(tmp_path / "b", other)
    report = verify(tmp_path / "a", tmp_path / "b")
    assert [d.tensor for d in report.differences] == [Q]


def test_there_and_back_and_no_witness(tmp_path: Path) -> None:
    tiny_fp8(tmp_path / "fp8", "qwen3_5")
    assert verify(tmp_path / "fp8").status == "same"
    assert verify(tmp_path / "fp8", None, VerifyOptions(on_disk=tmp_path)).status == "same"
    with pytest.raises(NotComparable, match="is FP8, and transformers"):
        verify(tmp_path / "fp8", None, VerifyOptions(witness="transformers"))
