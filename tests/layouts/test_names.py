"""`vlconv names`: both full names of every pair, generated from the table."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import MismatchError, names
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS

SAMPLED = 2

PAIRS = [(layout, model) for layout in LAYOUTS for model in LAYOUTS[layout].models if MODELS[model].family.releases]


@pytest.mark.parametrize(("layout", "model"), PAIRS)
def test_every_tensor_of_either_side_is_named(layout: str, model: str) -> None:
    pairs, config = names(layout, model), MODELS[model].family.releases[0].config
    here = config if LAYOUTS[layout].tower else replace(config, vision=None)
    assert {p.hf: p.hf_shape for p in pairs} == MODELS[model].hf_tensors(here)
    assert len({(p.mcore, p.hf) for p in pairs}) == len(pairs)


def test_what_a_megatron_user_greps() -> None:
    shown = CliRunner().invoke(app, ["names", "--layout", "mbridge", "--model", "qwen3_vl"]).stdout.splitlines()
    found = [line.split("\t") for line in shown if "layers.3.self_attn.q_proj" in line]
    qkv = "language_model.decoder.layers.3.self_attention.linear_qkv.weight"
    # Qwen3-VL-2B: 16 heads of 128 in 8 groups, hidden 2048
    query = "model.language_model.layers.3.self_attn.q_proj.weight"
    assert found == [[qkv, "[4096, 2048]", query, "[2048, 2048]", "8 boxes"]]


def test_experts_are_transposed() -> None:
    found = [p for p in names("mbridge", "Qwen3-VL-30B-A3B") if p.hf.endswith("layers.0.mlp.experts.down_proj")]
    assert [(p.mcore_shape, p.hf_shape, p.how) for p in found] == [((128, 2048, 768), (128, 768, 2048), "T")]


@pytest.mark.parametrize(
    ("layout", "model", "says"),
    [
        ("nobody", "qwen3_vl", "mbridge"),
        ("mbridge", "qwen9", "Qwen3-VL-2B"),
        ("mbridge", "qwen2_5_vl", "one of qwen3"),
        ("megatron-lm", "qwen3_5_text", "no release of its own"),
    ],
)
def test_what_there_is_not(layout: str, model: str, says: str) -> None:
    with pytest.raises(MismatchError) as refused:
        names(layout, model)
    assert says in str(refused.value)
    assert CliRunner().invoke(app, ["names", "--layout", layout, "--model", model]).exit_code == 2
