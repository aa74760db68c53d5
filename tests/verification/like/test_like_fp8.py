"""verify --like of FP8 directories: codes, scales and quantization_config; what comes of a fault, by transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fp8 import Tensors, compressed, fine_grained, plain_model, quantised_model, write_fp8
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf

from vlconv.converters import NotComparable, Report, UnsupportedError, repair, verify

BLOCK = (32, 16)
KEPT = ["lm_head", "model.visual"]
STATED = fine_grained(BLOCK, KEPT)
Q = "model.language_model.layers.2.self_attn.q_proj.weight"
SCALE = Q + "_scale_inv"
NORM = "model.language_model.layers.2.input_layernorm.weight"
CONFIG = tiny_config()
PLAIN: Tensors = tiny_weights(tiny_shapes(CONFIG))
FP8: Tensors = quantised_model(PLAIN, STATED)

Case = tuple[Callable[[], Tensors], dict[str, Any] | None]


def less(*endings: str) -> Tensors:
    return {name: tensor for name, tensor in FP8.items() if not name.endswith(endings)}


def halved() -> Tensors:
    return FP8 | {SCALE: FP8[SCALE][:1].clone()}


def write(directory: Path, tensors: Tensors, stated: dict[str, Any] | None) -> Path:
    write_fp8(directory, CONFIG, tensors, stated or {})
    if stated is None:
        (directory / "config.json").write_text(json.dumps(CONFIG))
    return directory


WRONG: dict[str, tuple[Callable[[], Tensors], dict[str, Any] | None, str, str, str]] = {
    "a scale is gone": (lambda: less(SCALE), STATED, "names", f"no scales beside 1 FP8 tensor: {Q}", "takes the codes"),
    "all scales are gone": (
        lambda: less("_scale_inv"),
        STATED,
        "names",
        "no scales beside 28 FP8 tensors",
        "the codes",
    ),
    "scales of another shape": (
        halved,
        STATED,
        "shapes",
        f"the scales beside 1 FP8 tensor are not those of FP8 (e4m3) in blocks of 32 x 16: {Q}",
        "transformers spreads over a weight what scales there are",
    ),
    "one weight made plain": (
        lambda: FP8 | {Q: PLAIN[Q]},
        STATED,
        "dtypes",
        "1 tensor is plain, with scales beside, and FP8 in the reference",
        "transformers multiplies by the scales",
    ),
    "one weight made plain, without scales": (
        lambda: less(SCALE) | {Q: PLAIN[Q]},
        STATED,
        "config",
        f"1 tensor is plain, and quantization_config does not say so: {Q}",
        "transformers takes them as they are",
    ),
    "a norm of another kind of number": (
        lambda: FP8 | {NORM: torch.ones(64, dtype=torch.int8)},
        STATED,
        "dtypes",
        f"1 tensor is int8: {NORM}",
        "the codes are taken for the weights themselves",
    ),
    "scales as their bytes": (
        lambda: FP8 | {SCALE: torch.ones(FP8[SCALE].shape, dtype=torch.uint8)},
        STATED,
        "dtypes",
        f"1 tensor is uint8: {SCALE}",
        "the codes are taken for the weights themselves",
    ),
    "all weights made plain": (
        lambda: PLAIN,
        STATED,
        "config",
        "28 tensors are plain, and quantization_config does not say so",
        "transformers takes them as they are",
    ),
    "no quantization_config": (
        lambda: FP8,
        None,
        "config",
        "config.json has no quantization_config, and 28 tensors are FP8",
        "transformers takes the codes for the weights themselves, and no scale",
    ),
    "other blocks stated": (
        lambda: FP8,
        fine_grained((16, 16), KEPT),
        "shapes",
        "the scales beside 28 FP8 tensors are not those of FP8 (e4m3) in blocks of 16 x 16",
        "vLLM refuses",
    ),
    "the tower not kept": (
        lambda: FP8,
        fine_grained(BLOCK, ["lm_head"]),
        "config",
        "23 tensors are plain, and quantization_config does not say so: model.visual",
        "vLLM makes FP8 layers",
    ),
    "one too many kept": (
        lambda: FP8,
        fine_grained(BLOCK, [*KEPT, Q.removesuffix(".weight")]),
        "config",
        f"1 tensor is FP8, which quantization_config lists as not quantised: {Q}",
        "vLLM makes plain layers",
    ),
    "a static scheme": (lambda: FP8, {**STATED, "activation_scheme": "static"}, "config", "static, not dynamic", ""),
}
"""What was done -> (tensors, quantization_config, kind, what is said, what comes of it)."""


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("fp8") / "reference", FP8, STATED)


def found(report: Report, severity: str = "wrong") -> list[tuple[str, str, str]]:
    return [(f.kind, f.what, f.load) for f in report.findings if f.severity == severity]


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_found_once(tmp_path: Path, reference: Path, name: str) -> None:
    make, stated, kind, what, load = WRONG[name]
    report = verify(write(tmp_path / "out", make(), stated), like=reference)
    ((its_kind, its_what, its_load),) = found(report)
    assert (its_kind, report.status) == (kind, "different") and what in its_what and load in its_load


def test_a_copy_is_as_it_should_be_and_its_scales_are_counted(tmp_path: Path, reference: Path) -> None:
    report = verify(write(tmp_path / "out", FP8, STATED), like=reference)
    assert (report.status, report.findings) == ("same", [])
    assert report.data["tensors"] == report.data["expected"] == len(PLAIN) + 28


def test_other_blocks_that_are_stated_are_worth_knowing(tmp_path: Path, reference: Path) -> None:
    stated = fine_grained((16, 16), KEPT)
    report = verify(write(tmp_path / "out", quantised_model(PLAIN, stated), stated), like=reference)
    ((kind, what, _),) = found(report, "note")
    assert (
        report.status == "same"
        and kind == "config"
        and what.startswith("config.json states FP8 (e4m3) in blocks of 16 x 16")
    )


def test_so_is_a_plain_weight_that_is_stated(tmp_path: Path, reference: Path) -> None:
    stated = fine_grained(BLOCK, [*KEPT, Q.removesuffix(".weight")])
    report = verify(write(tmp_path / "out", less(SCALE) | {Q: PLAIN[Q]}, stated), like=reference)
    ((kind, what, _),) = found(report, "note")
    assert report.status == "same" and kind == "dtypes" and "1 tensor is plain, as quantization_config says" in what


def test_scales_of_another_kind_are_those_of_its_own_config(tmp_path: Path, reference: Path) -> None:
    stated = compressed((1, 0), KEPT)
    report = verify(write(tmp_path / "out", quantised_model(PLAIN, stated), stated), like=reference)
    assert report.status == "same" and [kind for kind, *_ in found(report, "note")] == ["config"]


@pytest.mark.parametrize("way", ["plain against FP8", "FP8 against plain"])
def test_of_one_fp8_side_nothing_is_said(tmp_path: Path, reference: Path, way: str) -> None:
    write_tiny_hf(tmp_path / "plain", CONFIG)
    a, b = (tmp_path / "plain", reference) if way.startswith("plain") else (reference, tmp_path / "plain")
    with pytest.raises(NotComparable, match="reference are FP8, and the others are not"):
        verify(a, like=b)


def test_codes_that_config_json_does_not_state_against_a_plain_reference(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "plain", CONFIG)
    kinds = {kind for kind, *_ in found(verify(write(tmp_path / "out", FP8, None), like=tmp_path / "plain"))}
    assert kinds == {"names", "dtypes"}


def test_plain_weights_that_config_json_calls_fp8_against_a_plain_reference(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "plain", CONFIG)
    ((kind, what, _),) = found(verify(write(tmp_path / "out", PLAIN, STATED), like=tmp_path / "plain"))
    assert (kind, what) == ("config", "config.json has a quantization_config, and no tensor is FP8")


def test_repair_refuses_fp8_and_says_what_to_do(tmp_path: Path, reference: Path) -> None:
    write_tiny_hf(tmp_path / "plain", CONFIG)
    for options in ({"like": tmp_path / "plain"}, {"undo": "qkv-groups-as-flat"}):
        with pytest.raises(UnsupportedError, match="only plain weights are repaired") as fault:
            repair(reference, tmp_path / "out", **options)  # type: ignore[arg-type]
        assert "quantise those again" in fault.value.hint and not (tmp_path / "out").exists()


@pytest.mark.slow
class TestAsTransformersLoadsIt:
    """On a CPU, where it makes plain weights of them."""

    @staticmethod
    def loaded(directory: Path) -> tuple[torch.Tensor, dict[str, Any]]:
        from transformers import AutoModelForImageTextToText

        model, told = AutoModelForImageTextToText.from_pretrained(directory, output_loading_info=True)
        weight = model.model.language_model.layers[2].self_attn.q_proj.weight.detach().float()
        return weight, {key: names for key, names in told.items() if names}

    def test_a_good_one(self, reference: Path) -> None:
        weight, told = self.loaded(reference)
        assert torch.equal(weight, plain_model(FP8, STATED)[Q].float()) and not told

    def test_codes_without_scales_are_taken_for_the_weights_and_nothing_is_said(self, tmp_path: Path) -> None:
        weight, told = self.loaded(write(tmp_path / "out", less(SCALE), STATED))
        assert torch.equal(weight, FP8[Q].float()) and not told

    def test_without_quantization_config_as_well_but_for_names_it_does_not_know(self, tmp_path: Path) -> None:
        weight, told = self.loaded(write(tmp_path / "out", FP8, None))
        assert torch.equal(weight, FP8[Q].float()) and [*told] == ["unexpected_keys"]

    def test_a_plain_weight_is_multiplied_by_scales_that_are_left(self, tmp_path: Path) -> None:
        weight, told = self.loaded(write(tmp_path / "out", FP8 | {Q: PLAIN[Q]}, STATED))
        assert weight.norm() < 0.01 * PLAIN[Q].float().norm() and not told

    def test_without_scales_it_is_taken_as_it_is(self, tmp_path: Path) -> None:
        weight, told = self.loaded(write(tmp_path / "out", less(SCALE) | {Q: PLAIN[Q]}, STATED))
        assert torch.equal(weight, PLAIN[Q].float()) and not told

    def test_scales_of_another_shape_are_spread_over_it(self, tmp_path: Path) -> None:
        weight, told = self.loaded(write(tmp_path / "out", halved(), STATED))
        off = (weight - PLAIN[Q].float()).norm() / PLAIN[Q].float().norm()
        assert 0.1 < off < 1 and not told

    def test_one_that_is_called_not_quantised_finds_its_scales(self, tmp_path: Path) -> None:
        stated = fine_grained(BLOCK, [*KEPT, Q.removesuffix(".weight")])
        weight, _ = self.loaded(write(tmp_path / "out", FP8, stated))
        assert torch.equal(weight, plain_model(FP8, STATED)[Q].float())
