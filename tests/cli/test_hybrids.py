"""Heads, halves and computed norms on the command line, with real checkpoints; what the JSON documents hold of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hybrids import FIELD, Model, head_names, model, promised, saved
from references import differing, read_hf
from typer.testing import CliRunner, Result

from vlconv.app import app

SAMPLED = 2


def invoke(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="vlconv", env={"COLUMNS": "120"})


def document(*args: object, code: int = 0) -> Any:
    ran = invoke(*args, "--json")
    assert ran.exit_code == code, ran.output
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model(tmp_path_factory.mktemp("released") / "hf", "qwen3_5", seed=7)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return model(tmp_path_factory.mktemp("trained") / "hf", "qwen3_5", weights=False)


def test_a_head_that_is_dropped(tmp_path: Path, released: Model, trained: Model) -> None:
    source = saved(tmp_path / "saved", "mbridge", trained)
    told = document("mcore2hf", source, tmp_path / "hf", "--reference", released.directory, "--mtp", "drop")
    left = told["left_behind"]
    # three projections of queries, keys and values are one tensor, and two halves of the first layer of the MLP
    assert len(left) == 15 - 3 and all(".mtp.layers.0." in name for name in left)
    assert told["head_promise_taken_back"] is True
    (computed,) = told["computed"]
    assert (computed["added"], len(computed["tensors"])) == (1.0, 3)
    assert "carried" not in told
    assert promised(json.loads((tmp_path / "hf/config.json").read_text())) == {0}
    rest = {name: t for name, t in trained.tensors.items() if not name.startswith("mtp.")}
    assert differing(read_hf(tmp_path / "hf"), rest) == []
    compared = document("verify", source, tmp_path / "hf", "--reference", released.directory, "--mtp", "drop")
    assert compared["status"] == "same" and len(compared["by_rule"]) == 3


def test_a_head_and_a_tower_that_are_carried(tmp_path: Path, released: Model) -> None:
    headless = model(tmp_path / "trained", "qwen3_5", head=False)
    source = saved(tmp_path / "saved", "language-model", headless)
    asked = ("--reference", released.directory, "--mtp", "carry", "--carry", "model.visual.")
    told = document("mcore2hf", source, tmp_path / "hf", *asked)
    tower = sum(name.startswith("model.visual.") for name in released.tensors)
    assert told["carried"]["prefixes"] == {"mtp.": 15, "model.visual.": tower}
    assert (told["carried"]["tensors"], told["carried"]["untrained"]) == (15 + tower, True)
    theirs = {n: t for n, t in released.tensors.items() if n.startswith(("model.visual.", "mtp."))}
    assert differing(read_hf(tmp_path / "hf"), headless.tensors | theirs) == []
    assert head_names(released.config) <= read_hf(tmp_path / "hf").keys()
    manifest = json.loads((tmp_path / "hf/vlconv.json").read_text())
    assert manifest["changes"]["carried"]["prefixes"] == told["carried"]["prefixes"]
    assert document("verify", source, tmp_path / "hf", *asked)["status"] == "same"
    people = invoke("mcore2hf", source, tmp_path / "again", *asked)
    assert people.exit_code == 0 and "not trained with it" in people.stderr


def test_a_refusal_names_the_ways(tmp_path: Path, released: Model) -> None:
    source = saved(tmp_path / "saved", "mbridge", model(tmp_path / "trained", "qwen3_5", head=False))
    ran = invoke("mcore2hf", source, tmp_path / "hf", "--reference", released.directory)
    assert ran.exit_code == 1 and not (tmp_path / "hf").exists()
    said = " ".join(ran.stderr.split())
    assert f"promises a multi-token-prediction head ({FIELD} is 1)" in said
    assert "--mtp carry" in said and "--mtp drop" in said


class TestNames:
    def rows(self, layout: str, release: str) -> list[list[str]]:
        ran = invoke("names", "--layout", layout, "--model", release)
        assert ran.exit_code == 0
        return [line.split("\t") for line in ran.stdout.splitlines()]

    def test_of_qwen3_next(self) -> None:
        rows = self.rows("megatron-lm", "qwen3_next")
        at, hf = "decoder.layers.0.self_attention.", "model.layers.0.linear_attn."
        found = {(row[0].removeprefix(at), row[2].removeprefix(hf)): row[4] for row in rows if row[0].startswith(at)}
        assert found == {
            ("in_proj.layer_norm_weight", "model.layers.0.input_layernorm.weight"): "=",
            ("in_proj.weight", "in_proj_qkvz.weight"): "64 boxes",  # 16 key heads of four parts, and of two
            ("in_proj.weight", "in_proj_ba.weight"): "32 boxes",
            ("conv1d.weight", "conv1d.weight"): "=",
            ("dt_bias", "dt_bias"): "=",
            ("A_log", "A_log"): "=",
            ("out_norm.weight", "norm.weight"): "-1",
            ("out_proj.weight", "out_proj.weight"): "=",
        }
        # by layers: 36 with a Gated DeltaNet, 12 that attend; 512 experts of three matrices, and what is beside them
        assert len(rows) == 36 * 8 + 12 * 7 + 48 * (3 * 512 + 6) + 3

    @pytest.mark.parametrize(("layout", "how"), [("mbridge", "-1"), ("ms-swift-gdn", "="), ("slime", "=")])
    def test_what_is_computed_is_shown(self, layout: str, how: str) -> None:
        rows = self.rows(layout, "Qwen3.5-0.8B")
        found = [row[4] for row in rows if row[2].endswith(".linear_attn.norm.weight")]
        assert found == [how] * 18
        assert [row for row in rows if row[4] == "-1"] == [row for row in rows if row[0].endswith("out_norm.weight")][
            : 18 if how == "-1" else 0
        ]
