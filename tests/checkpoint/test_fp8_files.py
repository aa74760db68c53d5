"""What config.json says of FP8 weights and what the files hold must agree, tensor by tensor."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fp8 import FP8, Tensors, compressed, fine_grained, tiny_fp8
from refusing import edit_config, refused
from tiny import write_weights

from vlconv.converters import hf2mcore
from vlconv.converters.checkpoint.hf_side import HfReading, open_hf_side
from vlconv.converters.errors import MismatchError, UnsupportedError

LAYER = "model.language_model.layers.1."
Q, K, NORM = f"{LAYER}self_attn.q_proj.weight", f"{LAYER}self_attn.k_proj.weight", f"{LAYER}input_layernorm.weight"
SCALE = f"{Q}_scale_inv"

Change = Callable[[Tensors], Any]


def without(*names: str) -> Change:
    return lambda t: [t.pop(name) for name in names]


def as_plain(t: Tensors) -> None:
    del t[SCALE]
    t[Q] = t[Q].float().bfloat16()


def with_norm(t: Tensors) -> None:
    t[NORM], t[NORM + "_scale_inv"] = t[NORM].to(FP8), torch.ones(1, 1)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without(SCALE), (Q, "its scales", SCALE, "are missing")),
        (lambda t: t.update({SCALE: t[SCALE][:-1].clone()}), (SCALE, "[3, 4] where", Q, "[4, 4]")),
        (lambda t: t.update({SCALE: t[SCALE].t()[:3].contiguous()}), (SCALE, "[3, 4]")),
        (lambda t: t.update({SCALE: t[SCALE].half()}), (SCALE, "has dtype float16")),
        (lambda t: t.update({SCALE: t[SCALE].to(FP8)}), (SCALE, "has dtype float8_e4m3fn")),
        (lambda t: t.update({"other.weight_scale_inv": torch.ones(1)}), ("other.weight_scale_inv", "of no FP8 tensor")),
        (as_plain, (Q, "is bfloat16", "does not say that it is not quantised")),
        (with_norm, (NORM, "no matrix")),
        (lambda t: t.update({Q: t[Q].float().to(torch.float8_e5m2)}), (SCALE, "of no FP8 tensor")),
        (lambda t: t.update({Q: t[Q].view(torch.uint8)}), (SCALE, "of no FP8 tensor")),
    ],
)
def test_refused(tmp_path: Path, change: Change, says: tuple[str, ...]) -> None:
    tensors = dict(tiny_fp8(tmp_path / "hf"))
    change(tensors)
    write_weights(tmp_path / "hf", tensors)
    refused(hf2mcore, tmp_path / "hf", tmp_path / "mcore", fault=MismatchError, says=says)


def test_a_layer_that_the_config_names_may_be_plain(tmp_path: Path) -> None:
    """And must be: both words are held against the files."""
    tensors = dict(tiny_fp8(tmp_path / "hf"))
    name = Q.removesuffix(".weight")
    edit_config(tmp_path / "hf", lambda c: c["quantization_config"]["modules_to_not_convert"].append(name))
    says = (Q, "names it as one that is not quantised")
    refused(hf2mcore, tmp_path / "hf", tmp_path / "mcore", fault=MismatchError, says=says)
    as_plain(tensors)
    write_weights(tmp_path / "hf", tensors)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")


def test_weights_and_config_of_different_models(tmp_path: Path) -> None:
    tiny_fp8(tmp_path / "hf")
    stated = json.loads((tmp_path / "hf/config.json").read_text())["quantization_config"]
    edit_config(tmp_path / "hf", lambda c: c.update(quantization_config=None))
    refused(hf2mcore, tmp_path / "hf", tmp_path / "mcore", fault=MismatchError, says="has dtype float8_e4m3fn")
    edit_config(tmp_path / "hf", lambda c: c.update(quantization_config=stated | {"weight_block_size": [128, 128]}))
    refused(hf2mcore, tmp_path / "hf", tmp_path / "mcore", fault=MismatchError, says="in blocks of 128 x 128: [1, 1]")
    edit_config(tmp_path / "hf", lambda c: c.update(quantization_config=compressed()))
    refused(hf2mcore, tmp_path / "hf", tmp_path / "mcore", fault=MismatchError, says=".weight_scale are missing")
    edit_config(tmp_path / "hf", lambda c: c.update(quantization_config={"quant_method": "awq"}))
    refused(hf2mcore, tmp_path / "hf", tmp_path / "mcore", fault=UnsupportedError, says="AWQ")


def test_a_tied_model_with_an_output_layer_of_its_own(tmp_path: Path) -> None:
    from fp8 import is_linear, quantised_model, write_fp8
    from tiny import tiny_config, tiny_shapes, tiny_weights

    config, stated = tiny_config(tied=True), fine_grained((32, 16))
    tensors = tiny_weights(tiny_shapes(config))
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"].clone()
    made = quantised_model(tensors, stated, which=lambda name: is_linear(name) or name == "lm_head.weight")
    write_fp8(tmp_path / "hf", config, made, stated)
    refused(hf2mcore, tmp_path / "hf", tmp_path / "mcore", fault=MismatchError, says="lm_head.weight is FP8")


def test_opened(tmp_path: Path) -> None:
    tiny_fp8(tmp_path / "hf", stated=compressed())
    side = open_hf_side(tmp_path / "hf", HfReading(fp8_as="float32"))
    assert side.restated and "quantization_config" not in side.hf_config
    assert side.reader.specs[Q].dtype == "float32" and side.reader.specs[NORM].dtype == "bfloat16"
    assert side.chunks.specs[Q].dtype == "float8_e4m3fn"
