"""repair: the good directory comes back bit for bit, or nothing is written."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny import tiny_config, write_tiny_hf
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import CorruptError, Hf2McoreOptions, MismatchError, OptionError, hf2mcore, repair, verify
from vlconv.converters.models import model_for
from vlconv.converters.repairs.undone import by_diagnosis
from vlconv.converters.verification.diagnosis.diagnosis import Diagnosis

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


def test_where_the_fault_would_make_the_like_of_the_source_it_is_done_and_not_undone(tmp_path: Path) -> None:
    """Whatever happened, `--like` is the good one: experts were turned once too often, or once too seldom."""
    pair(tmp_path, "experts not transposed")
    repair(tmp_path / "good", tmp_path / "out", like=tmp_path / "broken")
    assert files(tmp_path / "out") == files(tmp_path / "broken")


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
        report = repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "base")
        assert files(tmp_path / "out") == files(tmp_path / "good")
        (left,) = report.data["left_as_it_is"]
        assert "training" in left["says"] and sorted(left["tensors"]) == sorted(
            n for n in hf if not hf[n].equal(base[n])
        )


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_not_a_known_permutation_is_refused(tmp_path: Path, name: str) -> None:
    pair(tmp_path, name)
    with pytest.raises(MismatchError, match="more is wrong than can be undone"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")
    assert not (tmp_path / "out").exists()


def test_so_is_what_two_permutations_explain_alike() -> None:
    config = model_for(tiny_config("qwen3_vl")).config(tiny_config("qwen3_vl"))
    tensors = [f"model.language_model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
    one = Diagnosis("qkv-groups-as-flat", "", True, tensors, rivals=("qkv-tp2-as-flat",))
    with pytest.raises(MismatchError, match="and as well as qkv-tp2-as-flat does"):
        by_diagnosis([one], config)
    sure = replace(one, rivals=())
    assert [undone.tensors for undone in by_diagnosis([sure], config)] == [tensors]
    with pytest.raises(MismatchError, match="is concerned by qkv-groups-as-flat and by qkv-tp2-as-flat"):
        by_diagnosis([sure, replace(sure, name="qkv-tp2-as-flat")], config)


def test_so_is_a_config_that_no_conversion_takes(tmp_path: Path) -> None:
    pair(tmp_path, VISION)
    config = json.loads((tmp_path / "broken" / "config.json").read_text())
    config["text_config"]["rope_theta"] = -1
    (tmp_path / "broken" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CorruptError, match="rope_theta"):
        repair(tmp_path / "broken", tmp_path / "out", undo="vision-qkv-tp2-as-flat")
    assert not (tmp_path / "out").exists()


def test_so_is_a_permutation_beside_something_else(tmp_path: Path) -> None:
    pair(tmp_path, VISION, "zeros")
    with pytest.raises(MismatchError, match="more is wrong"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")


DOWN = "model.language_model.layers.1.mlp.down_proj.weight"


def spoil_again(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    """One more tensor of `broken`."""
    hf = load_file(folder / "broken" / "model.safetensors")
    write_tiny_hf(folder / "broken", tiny_config("qwen3_vl"), tensors=hf | {DOWN: change(hf[DOWN])}, shards=1)


def test_so_is_one_beside_other_numbers_of_another_dtype(tmp_path: Path) -> None:
    """Of which a comparison has nothing to say but that."""
    pair(tmp_path, VISION, shards=1)
    spoil_again(tmp_path, lambda t: torch.randn(t.shape, generator=torch.Generator().manual_seed(4)))
    with pytest.raises(MismatchError, match=f"nothing explains 1 tensors, {DOWN} among them"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")
    assert not (tmp_path / "out").exists()


def test_so_is_one_beside_other_rows_of_another_number(tmp_path: Path) -> None:
    """They are neither padding nor added tokens; only their shape is seen to differ."""
    pair(tmp_path, VISION, shards=1)
    hf = load_file(tmp_path / "broken" / "model.safetensors")
    ends = ("embed_tokens.weight", "lm_head.weight")
    rows = {n: torch.randn(384, t.shape[1]).to(t.dtype) for n, t in hf.items() if n.endswith(ends)}
    config = tiny_config("qwen3_vl", text={"vocab_size": 384})
    write_tiny_hf(tmp_path / "broken", config, tensors=hf | rows, shards=1)
    with pytest.raises(MismatchError, match="nothing explains 2 tensors"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")


def test_so_is_one_beside_a_few_numbers_that_are_nan(tmp_path: Path) -> None:
    def one_nan(tensor: torch.Tensor) -> torch.Tensor:
        tensor[3, 3] = float("nan")
        return tensor

    pair(tmp_path, VISION, shards=1)
    spoil_again(tmp_path, one_nan)
    with pytest.raises(MismatchError, match="more is wrong than can be undone"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "good")


def test_a_model_of_other_shapes_shows_nothing(tmp_path: Path) -> None:
    pair(tmp_path, VISION)
    write_tiny_hf(tmp_path / "other", tiny_config("qwen3_vl", vision={"hidden_size": 48, "num_heads": 4}))
    with pytest.raises(MismatchError, match=r"has another shape of model\.visual\..*, so nothing shows that --undo"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "other", undo="vision-qkv-tp2-as-flat")
    write_tiny_hf(tmp_path / "text", tiny_config("qwen3"))
    with pytest.raises(MismatchError, match="has no tensor that vision-qkv-tp2-as-flat concerns, so nothing shows"):
        repair(tmp_path / "broken", tmp_path / "out", like=tmp_path / "text", undo="vision-qkv-tp2-as-flat")
    assert not (tmp_path / "out").exists()


def test_on_whose_word_it_was_done_is_told(tmp_path: Path) -> None:
    pair(tmp_path, VISION)
    for given, word in (
        ({"like": tmp_path / "good"}, f"as {tmp_path / 'good'} shows"),
        ({"undo": "vision-qkv-tp2-as-flat"}, "as --undo says"),
        (
            {"undo": "vision-qkv-tp2-as-flat", "like": tmp_path / "good"},
            f"as --undo says, and near {tmp_path / 'good'} then",
        ),
    ):
        report = repair(tmp_path / "broken", tmp_path / "out", dry_run=True, **given)
        (told,) = (fact.text for fact in report.facts if fact.name == "repaired")
        assert f"undone in 8 tensors, {word}: " in told


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
