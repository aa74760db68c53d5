"""verify A B --forward: what weights differ in, and what is computed of them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forward import batch_of, here, known, straight
from fp8 import fine_grained, plain_model, quantised_model, write_fp8
from refusing import edit_config
from safetensors.torch import load_file
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf, write_weights

from vlconv import NotComparable, verify
from vlconv.converters import Report
from vlconv.converters.verification.forward import forward as running
from vlconv.converters.verification.forward.hugging_face.run import file_of, logits_of

__all__ = ["here"]

pytestmark = [pytest.mark.versions, pytest.mark.usefixtures("here")]

Tensors = dict[str, torch.Tensor]
ALL = [
    *("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl", "qwen3_5", "qwen3_5_moe"),
    *("qwen2", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("forward") / "model"
    write_tiny_hf(folder, tiny_config("qwen3_vl"))
    return folder


def another(model: Path, target: Path, change: Callable[[str, torch.Tensor], torch.Tensor] = lambda n, t: t) -> Path:
    """A copy with other numbers in some tensors."""
    shutil.copytree(model, target)
    held = load_file(model / "model.safetensors")
    write_weights(target, {name: change(name, tensor).contiguous() for name, tensor in held.items()})
    return target


def verdicts(report: Report) -> dict[str, str]:
    return {part: found["verdict"] for part, found in report.data["forward"]["parts"].items()}


def test_the_same_weights_are_computed_the_same(model: Path, tmp_path: Path) -> None:
    report = verify(model, another(model, tmp_path / "b"), forward=True)
    assert report.status == "same" and verdicts(report) == {"text": "equal", "images": "equal"}
    assert report.result.endswith("bit for bit; logits are equal bit for bit")
    assert report.told["so"] == "the same weights, computing the same"
    assert report.data["forward"]["dtype"] == "float32" and report.data["forward"]["copied"] == {"A": 0, "B": 0}


def test_logits_are_those_of_transformers(model: Path, tmp_path: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    batch_of(config).save(tmp_path / "batch.npz")
    parts, ways = ("text", "images"), ("eager", "sdpa", "alone")
    asked = (model, tmp_path / "batch.npz", parts, tmp_path)
    assert not logits_of(*asked, tower=True, dtype="float32", device="cpu", ways=ways)
    for part in parts:
        expected = straight(model, part)
        assert expected.std() > 0.5
        for way in ways:
            assert np.abs(np.load(file_of(tmp_path, way, part)) - expected).max() < 1e-4
        assert np.array_equal(np.load(file_of(tmp_path, "eager", part)), expected)


def test_a_fault_in_the_tower_is_of_images_alone(model: Path, tmp_path: Path) -> None:
    other = another(model, tmp_path / "b", lambda n, t: t.roll(16, 0) if ".blocks.1.attn.qkv.weight" in n else t)
    report = verify(model, other, forward=True)
    assert report.status == "different" and verdicts(report) == {"text": "equal", "images": "different"}
    assert "the vision tower" in report.told["so"] and report.result == "different: 1 of 116 tensors; logits differ"
    gap = np.abs(straight(model, "images") - straight(other, "images")).max()
    assert report.data["forward"]["parts"]["images"]["max_abs"] == pytest.approx(gap, rel=1e-5)


def test_a_fault_in_the_language_model_is_of_text_too(model: Path, tmp_path: Path) -> None:
    other = another(model, tmp_path / "b", lambda n, t: t.roll(16, 0) if ".layers.2.self_attn.q_proj" in n else t)
    report = verify(model, other, forward=True)
    assert verdicts(report) == {"text": "different", "images": "different"}
    text, gap = report.data["forward"]["parts"]["text"], np.abs(straight(model, "text") - straight(other, "text"))
    assert text["max_abs"] == pytest.approx(gap.max(), rel=1e-5)
    assert text["noise"] < gap.max() / 100 and text["apart"] == (gap.max(-1) > text["noise"]).sum()


def test_a_difference_that_nothing_comes_of_is_noise(model: Path, tmp_path: Path) -> None:
    def nudge(name: str, tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.float()
        if name.endswith("layers.0.mlp.down_proj.weight"):
            changed[0, 0] *= 1 + 2**-22
        return changed

    wide = another(model, tmp_path / "a", lambda n, t: t.float())
    report = verify(wide, another(model, tmp_path / "b", nudge), forward=True)
    assert report.status == "different" and [d.count for d in report.differences] == [1]
    assert set(verdicts(report).values()) <= {"noise", "equal"}
    assert report.result.startswith("different: 1 of 116 tensors; logits ")
    assert report.told["so"] == "what differs in the weights changes nothing here beyond the noise of computing"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: c["text_config"].update(rope_theta=10000), "text_config.rope_theta (5000000 and 10000)"),
        (lambda c: c["text_config"].update(rms_norm_eps=1e-3), "text_config.rms_norm_eps (1e-06 and 0.001)"),
        (lambda c: c["text_config"].update(hidden_act="gelu"), "text_config.hidden_act (silu and gelu)"),
    ],
)
def test_a_config_of_another_model_is_found(model: Path, tmp_path: Path, change: Any, told: str) -> None:
    other = another(model, tmp_path / "b")
    edit_config(other, change)
    report = verify(model, other, forward=True)
    assert report.status == "different" and not report.differences
    assert verdicts(report) == {"text": "different", "images": "different"}
    assert report.result.startswith("different: the weights are the same, the logits are not: text at most ")
    assert told in report.told["so"]


def test_axes_of_positions_are_of_images_alone(model: Path, tmp_path: Path) -> None:
    other = another(model, tmp_path / "b")
    edit_config(other, lambda c: c["text_config"]["rope_scaling"].update(mrope_section=[6, 1, 1]))
    report = verify(model, other, forward=True)
    assert report.status == "different" and verdicts(report) == {"text": "equal", "images": "different"}
    assert "mrope_section ([4, 2, 2] and [6, 1, 1])" in report.told["so"]


def test_other_token_ids_of_images_are_a_difference(model: Path, tmp_path: Path) -> None:
    other = another(model, tmp_path / "b")
    edit_config(other, lambda c: c.update(image_token_id=288))
    report = verify(model, other, forward=True)
    assert report.status == "different" and verdicts(report) == {"text": "equal"}
    assert any("no image is run" in warning for warning in report.warnings)
    assert "image_token_id (286 and 288)" in report.told["so"]


def test_wider_weights_of_equal_numbers_compute_the_same(model: Path, tmp_path: Path) -> None:
    wide = another(model, tmp_path / "b", lambda n, t: t.float())
    report = verify(model, wide, forward=True, values=True)
    assert report.status == "same" and set(verdicts(report).values()) == {"equal"}


def test_fp8_is_run_as_the_plain_weights_it_stands_for(tmp_path: Path) -> None:
    config = tiny_config("qwen3_vl")
    stated = fine_grained((32, 16), ["lm_head", "model.visual"])
    held = quantised_model(tiny_weights(tiny_shapes(config)), stated, torch.bfloat16)
    write_fp8(tmp_path / "fp8", config, held, stated)
    write_tiny_hf(tmp_path / "plain", config, tensors=plain_model(held, stated))
    report = verify(tmp_path / "plain", tmp_path / "fp8", forward=True, values=True)
    assert report.data["forward"]["copied"]["A"] == 0 < report.data["forward"]["copied"]["B"]
    assert verdicts(report) == {"text": "equal", "images": "equal"}


def test_weights_that_transformers_makes_up_are_never_compared(tmp_path: Path) -> None:
    """It does not read this model's experts one by one."""
    config = tiny_config("qwen3_vl_moe")
    hf = write_tiny_hf(tmp_path / "a", config)
    split: Tensors = {}
    for name, tensor in hf.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            split[name] = tensor
            continue
        top = name.rpartition(".")[0]
        for number, one in enumerate(tensor):
            parts = zip(("gate_proj", "up_proj"), one.T.chunk(2), strict=True) if "gate_up" in name else []
            for part, piece in parts or [("down_proj", one.T)]:
                split[f"{top}.{number}.{part}.weight"] = piece.contiguous()
    write_tiny_hf(tmp_path / "b", config, tensors=split)
    report = verify(tmp_path / "a", tmp_path / "b", forward=True)
    assert report.status == "different" and not report.differences
    assert report.result == "different: the weights are the same, and transformers does not load B whole"
    assert "would make them up" in report.told["not_run"] and report.data["forward"]["parts"] == {}


@pytest.mark.slow
def test_old_and_new_names_are_one_model(tmp_path: Path) -> None:
    hf = write_tiny_hf(tmp_path / "old", tiny_config("qwen2_5_vl"))
    new = {name.replace("visual.", "model.visual.", 1): tensor for name, tensor in hf.items()}
    new = {re.sub(r"^model\.(?!visual)", "model.language_model.", name): tensor for name, tensor in new.items()}
    assert not new.keys() & hf.keys() - {"lm_head.weight"}
    write_tiny_hf(tmp_path / "new", tiny_config("qwen2_5_vl"), tensors=new)
    report = verify(tmp_path / "old", tmp_path / "new", forward=True)
    assert report.status == "same" and verdicts(report) == {"text": "equal", "images": "equal"}
    assert report.data["forward"]["copied"] == {"A": 0, "B": 0}


@pytest.mark.slow
@pytest.mark.parametrize("family", ALL)
def test_every_model(tmp_path: Path, family: str) -> None:
    known(family)
    config = tiny_config(family)
    write_tiny_hf(tmp_path / "a", config)
    fault = ".mlp.experts.0.down" if family in ("qwen3_moe", "qwen3_next") else "down_proj"
    other = another(tmp_path / "a", tmp_path / "b", lambda n, t: t.roll(1, 0) if fault in n else t)
    report = verify(tmp_path / "a", another(tmp_path / "a", tmp_path / "same"), forward=True)
    assert report.status == "same" and set(verdicts(report).values()) == {"equal"}
    assert len(verdicts(report)) == 1 + ("vision_config" in config)
    for found in report.data["forward"]["parts"].values():
        assert 0 < found["noise"] < 1e-2 * found["spread"]
    report = verify(tmp_path / "a", other, forward=True)
    assert set(verdicts(report).values()) == {"different"}
    for part, found in report.data["forward"]["parts"].items():
        gap = np.abs(straight(tmp_path / "a", part) - straight(other, part)).max()
        assert found["max_abs"] == pytest.approx(gap, rel=1e-4)


def test_a_dry_run_says_what_would_be_run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.Forward, "run", lambda *_: pytest.fail("it was run"))
    report = verify(model, another(model, tmp_path / "b"), forward=True, dry_run=True)
    assert report.status == "planned" and "2 texts of 48 tokens and 2 with an image" in report.told["forward"]


def test_files_that_change_meanwhile(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other, run = another(model, tmp_path / "b"), running.logits_of

    def saved_again(*args: Any, **asked: Any) -> Any:
        write_weights(other, load_file(model / "model.safetensors"))
        return run(*args, **asked)

    monkeypatch.setattr(running, "logits_of", saved_again)
    with pytest.raises(NotComparable, match="changed"):
        verify(model, other, forward=True)
