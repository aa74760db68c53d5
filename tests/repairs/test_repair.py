"""repair: the good directory comes back bit for bit, or nothing is written."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tiny import tiny_config, write_tiny_hf
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import Hf2McoreOptions, MismatchError, OptionError, hf2mcore, repair, verify

SAMPLED = 2

HERE = Path(__file__).parents[1] / "verification" / "diagnosis"


def beside(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"diagnosis_{name}", HERE / f"{name}.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


corruptions = beside("corruptions")
CORRUPTIONS = corruptions.CORRUPTIONS

REPAIRED = [
    "QKV not de-interleaved, biases",
    "QKV per rank, TP 2",
    "gated: ms-swift's for Megatron-core's",
    "vision QKV per rank, TP 2 (Pai)",
    "gate and up per rank, TP 4",
    "experts: gate and up per rank, TP 2",
    "experts sorted as text",
    "experts not transposed",
    "GDN in_proj per rank, TP 2",
    "a square matrix transposed",
]
OTHERS = ["zeros", "times one half", "a layer late", "rows shuffled", "a shard of another iteration", "noise"]
VISION = "vision QKV per rank, TP 2 (Pai)"


def pair(folder: Path, *names: str, shards: int = 2, trained: float = 0.0, **config: Any) -> Path:
    """`good`, and `broken` as the corruptions make it; `base`, too, of which `good` is a training."""
    case = CORRUPTIONS[names[0]]
    hf_config = tiny_config(case.model, text=dict(case.text) or None, **config)
    hf = write_tiny_hf(folder / ("base" if trained else "good"), hf_config, shards=shards)
    if trained:
        hf = {name: corruptions.trained(trained)(tensor) for name, tensor in hf.items()}
        write_tiny_hf(folder / "good", hf_config, tensors=hf, shards=shards)
    text, vision = hf_config.get("text_config", hf_config), hf_config.get("vision_config", {})
    broken = dict(hf)
    for name in names:
        broken |= CORRUPTIONS[name].spoil(hf, text, vision)
    broken = {name: tensor.clone() for name, tensor in broken.items()}
    write_tiny_hf(folder / "broken", hf_config, tensors=broken, shards=shards)
    return folder


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "vlconv.json"}


@pytest.mark.parametrize("name", REPAIRED)
def test_the_good_directory_comes_back(tmp_path: Path, name: str) -> None:
    pair(tmp_path, name)
    assert files(tmp_path / "broken") != files(tmp_path / "good")
    report = repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")
    assert files(tmp_path / "out") == files(tmp_path / "good")
    assert [one["undone"] for one in report.data["repaired"]] == [CORRUPTIONS[name].named]


def test_two_faults_at_once(tmp_path: Path) -> None:
    pair(tmp_path, VISION, "QKV not de-interleaved", shards=1)
    repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")
    assert files(tmp_path / "out") == files(tmp_path / "good")


def test_by_name_alone(tmp_path: Path) -> None:
    pair(tmp_path, VISION)
    repair(tmp_path / "broken", tmp_path / "out", undo="vision-qkv-tp2-as-flat")
    assert files(tmp_path / "out") == files(tmp_path / "good")


def test_the_checkpoint_that_it_was_exported_from_will_do(tmp_path: Path) -> None:
    pair(tmp_path, VISION)
    hf2mcore(tmp_path / "good", tmp_path / "mcore", Hf2McoreOptions())
    repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "mcore")
    assert files(tmp_path / "out") == files(tmp_path / "good")


def test_a_tied_model_s_second_output_layer_stays(tmp_path: Path) -> None:
    config = tiny_config("qwen3_vl", tied=True)
    hf = write_tiny_hf(tmp_path / "bare", config)
    hf["lm_head.weight"] = hf["model.language_model.embed_tokens.weight"].clone()
    write_tiny_hf(tmp_path / "good", config, tensors=hf)
    broken = hf | CORRUPTIONS[VISION].spoil(hf, config["text_config"], config["vision_config"])
    write_tiny_hf(tmp_path / "broken", config, tensors=broken)
    repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")
    assert files(tmp_path / "out") == files(tmp_path / "good")


class TestTrained:
    """Against the base, of which the broken model is a training."""

    def test_it_is_not_exact_and_refused(self, tmp_path: Path) -> None:
        pair(tmp_path, VISION, trained=0.02)
        with pytest.raises(MismatchError, match="not exactly, as where they were trained") as fault:
            repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "base")
        assert "--undo vision-qkv-tp2-as-flat" in fault.value.hint and not (tmp_path / "out").exists()

    def test_named_it_is_undone(self, tmp_path: Path) -> None:
        pair(tmp_path, VISION, trained=0.02)
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "base", undo=["vision-qkv-tp2-as-flat"])
        assert files(tmp_path / "out") == files(tmp_path / "good")

    @pytest.mark.parametrize("undo", ["vision-qkv-tp4-as-flat", "vision-qkv-flat-as-tp2", "qkv-groups-as-flat"])
    def test_by_a_wrong_name_it_is_refused(self, tmp_path: Path, undo: str) -> None:
        pair(tmp_path, VISION, trained=0.02, vision={"num_heads": 8})
        with pytest.raises(MismatchError, match="is not near that of the model of --like"):
            repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "base", undo=undo)
        assert not (tmp_path / "out").exists()

    def test_a_frozen_tower_that_is_exact_is_undone_beside_what_was_trained(self, tmp_path: Path) -> None:
        config = tiny_config("qwen3_vl")
        base = write_tiny_hf(tmp_path / "base", config)
        hf = {n: t if ".visual." in n else corruptions.trained(0.02)(t) for n, t in base.items()}
        write_tiny_hf(tmp_path / "good", config, tensors=hf)
        spoiled = CORRUPTIONS[VISION].spoil(hf, config["text_config"], config["vision_config"])
        write_tiny_hf(tmp_path / "broken", config, tensors=hf | spoiled)
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "base")
        assert files(tmp_path / "out") == files(tmp_path / "good")


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_a_known_permutation_is_refused(tmp_path: Path, name: str) -> None:
    pair(tmp_path, name)
    with pytest.raises(MismatchError, match="more is wrong than can be undone"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")
    assert not (tmp_path / "out").exists()


def test_so_is_a_permutation_beside_something_else(tmp_path: Path) -> None:
    pair(tmp_path, VISION, "zeros")
    with pytest.raises(MismatchError, match="more is wrong"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")


def test_a_good_directory_is_refused(tmp_path: Path) -> None:
    pair(tmp_path, VISION)
    write_tiny_hf(tmp_path / "copy", tiny_config("qwen3_vl"))
    with pytest.raises(MismatchError, match="no known fault explains"):
        repair(tmp_path / "copy", tmp_path / "out", like=tmp_path / "good")


def test_what_was_done_is_in_the_manifest_and_the_output_can_be_verified(tmp_path: Path) -> None:
    pair(tmp_path, VISION)
    repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")
    made = json.loads((tmp_path / "out" / "vlconv.json").read_text())
    assert "vision-qkv-tp2-as-flat undone in 8 tensors" in json.dumps(made)
    assert verify(tmp_path / "good", tmp_path / "out").status == "same"
    assert verify(tmp_path / "out").status == "same"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "neither --like nor --undo"),
        ({"undo": ["vision-qkv"]}, "--undo 'vision-qkv' is no known fault"),
        ({"undo": ["experts-swapped"]}, "has no tensors that it concerns"),
        ({"undo": ["qkv-tp2-as-flat", "qkv-groups-as-flat"]}, "is concerned by qkv-tp2-as-flat and by qkv-groups"),
    ],
)
def test_what_cannot_be_asked(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    write_tiny_hf(tmp_path / "broken", tiny_config("qwen3_vl"))
    with pytest.raises((OptionError, MismatchError)) as fault:
        repair(tmp_path / "broken", tmp_path / "out", **options)
    assert says in str(fault.value) and not (tmp_path / "out").exists()


class TestCommandLine:
    def test_it_repairs(self, tmp_path: Path) -> None:
        pair(tmp_path, VISION)
        ran = CliRunner().invoke(
            app, ["repair", *(str(tmp_path / name) for name in ("broken", "out")), "--like", str(tmp_path / "good")]
        )
        assert ran.exit_code == 0, ran.output
        assert "vision-qkv-tp2-as-flat undone in 8 tensors" in ran.stdout

    def test_a_dry_run_writes_nothing(self, tmp_path: Path) -> None:
        pair(tmp_path, VISION)
        words = ["repair", *(str(tmp_path / name) for name in ("broken", "out")), "--dry-run"]
        ran = CliRunner().invoke(app, [*words, "--undo", "vision-qkv-tp2-as-flat"])
        assert ran.exit_code == 0 and not (tmp_path / "out").exists()
