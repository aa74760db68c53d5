"""inspect: what is said of checkpoints as trainers save them, against what was saved; only metadata is read."""

from __future__ import annotations

import json
import shlex
import shutil
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from fp8 import tiny_fp8
from mcore.legacy import save_legacy
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from refusing import snapshot
from run_config import run_config
from tiny import tiny_config, tiny_shapes, tiny_weights, write_side_files, write_tiny_hf
from trainers.places import TRAINERS, saved_names, write
from typer.testing import CliRunner

from vlconv.app import app
from vlconv.converters import (
    Hf2McoreOptions,
    InspectOptions,
    Mcore2HfOptions,
    NotACheckpoint,
    ReferenceFault,
    hf2mcore,
    inspect,
    mcore2hf,
)
from vlconv.converters.formats.chunks import ChunkReader

CASES = [(name, kind) for name, trainer in TRAINERS.items() for kind in trainer.kinds[:1]]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def saved(root: Path, name: str, config: dict[str, Any], reference: bool = False) -> tuple[Path, dict[str, Any]]:
    """A trainer's checkpoint, its Hugging Face files beside it if they are wanted; and the tensors."""
    tensors = tiny_weights(tiny_shapes(config))
    place = write(root, name, config, tensors)
    if reference:
        beside = root / TRAINERS[name].beside
        beside.mkdir(parents=True)
        (beside / "config.json").write_text(json.dumps(config))
        write_side_files(beside, config)
    return place, tensors


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_every_trainers_checkpoint_is_recognised(
    tmp_path: Path, name: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, tensors = saved(tmp_path / "saved", name, tiny_config(kind), reference=True)
    before = snapshot(tmp_path)
    monkeypatch.setattr(ChunkReader, "read_into", lambda *args: pytest.fail("a tensor is read"))
    found = inspect(tmp_path / "saved")
    assert snapshot(tmp_path) == before
    assert (found.kind, found.layout, found.directory) == ("megatron", name, place)
    assert found.model
    assert found.model.model_type == kind
    held = list(saved_names(name, tiny_config(kind), tensors).values())
    assert found.whole and found.parameters == sum(tensor.numel() for tensor in held)
    assert found.weight_bytes == sum(tensor.numel() * tensor.element_size() for tensor in held)
    assert found.converts is (name != "language-model"), found.why_not
    assert not found.converts or (found.needs.directory and found.needs.files == ())


def test_the_language_half_of_a_model_is_not_taken_for_a_model_of_text(tmp_path: Path) -> None:
    saved(tmp_path / "saved", "language-model", tiny_config("qwen3_vl_moe"))
    found = inspect(tmp_path / "saved")
    assert found.model and found.model.model_type == "qwen3_vl_moe"
    assert found.model.release.startswith("Qwen3-VL-")
    assert not found.converts and "language model" in found.why_not
    assert shlex.split(found.next[0])[4:] == ["--reference", "HF_MODEL", "--carry", "model.visual."]


def test_a_hugging_face_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = write_tiny_hf(tmp_path / "hf", tiny_config(tied=True), shards=2)
    monkeypatch.setattr(ChunkReader, "read_into", lambda *args: pytest.fail("a tensor is read"))
    found = inspect(tmp_path / "hf")
    assert (found.kind, found.converts, found.format) == ("huggingface", True, "hf")
    assert found.model and found.model.sizes["text_config.num_hidden_layers"] == 4
    assert {(t.name, t.shape) for t in found.tensors} == {(n, tuple(t.shape)) for n, t in tensors.items()}
    assert found.file_bytes == sum(path.stat().st_size for path in (tmp_path / "hf").iterdir())
    assert found.next == (f"vlconv hf2mcore {tmp_path / 'hf'} hf-mcore",)


def test_no_number_is_looked_at_where_a_conversion_looks(tmp_path: Path) -> None:
    """The output layer of a tied model is held against the embedding, but by a conversion alone."""
    config = tiny_config(tied=True)
    tensors = tiny_weights(tiny_shapes(config))
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"] + 1
    write_tiny_hf(tmp_path / "hf", config, tensors=tensors)
    assert inspect(tmp_path / "hf").converts
    with pytest.raises(Exception, match="is no copy of its embedding"):
        hf2mcore(tmp_path / "hf", tmp_path / "out")


@pytest.mark.parametrize("sizes", [{"tp": 2, "pp": 2}, {"tp": 4}])
def test_rank_files_are_told_whole(tmp_path: Path, sizes: dict[str, int]) -> None:
    config = tiny(tied=True)
    hf = random_hf_tensors(config)
    save_legacy(tmp_path / "saved", config, hf, Topology(**sizes), iteration=20)
    found = inspect(tmp_path / "saved")
    assert (found.format, found.layout) == ("torch", "mbridge")
    assert {name: size for name, size in found.topology.items() if size > 1} == {
        **sizes,
        "etp": sizes["tp"],
        "world_size": 4,
    }
    shapes = {tensor.name: tensor.shape for tensor in found.tensors}
    fc1 = "language_model.decoder.layers.0.mlp.linear_fc1.weight"
    assert shapes[fc1] == (2 * config.text.ffn, config.text.hidden)
    assert [(one.number, one.tracked, one.described) for one in found.iterations] == [(20, True, True)]


def test_what_a_reference_has_to_give(tmp_path: Path) -> None:
    config = tiny(tied=True)
    save_legacy(tmp_path / "my runs", config, random_hf_tensors(config), Topology(), iteration=20)
    found = inspect(tmp_path / "my runs")
    assert not found.converts
    assert found.needs.unknown == ("vision_config.num_heads", "vision_config.deepstack_visual_indexes")
    assert "tokenizer" in found.needs.files
    assert found.model and found.model.sizes["text_config.num_attention_heads"] == config.text.heads
    assert [said.where for said in found.states] == ["the checkpoint's args"]
    assert found.states[0].facts["num_layers"] == config.text.layers
    assert found.states[0].facts["untie_embeddings_and_output_weights"] is False
    (command,) = found.next
    assert shlex.split(command) == [
        *("vlconv", "mcore2hf", str(tmp_path / "my runs"), "my runs-hf", "--reference", "HF_MODEL"),
    ]


def test_each_file_is_named_with_what_it_states(tmp_path: Path) -> None:
    config = tiny_config()
    place, _ = saved(tmp_path / "saved", "ms-swift", config)
    (place / "run_config.yaml").write_text(run_config(config))
    said = {one.where: one.facts for one in inspect(tmp_path / "saved").states}
    assert {"run_config.yaml", "args.json"} <= said.keys()
    assert said["run_config.yaml"]["vision_config.num_heads"] == config["vision_config"]["num_heads"]
    assert said["args.json"]["num_layers"] == 4


class TestIterations:
    @pytest.fixture
    def saves(self, tmp_path: Path) -> Path:
        """Iterations 9, 10 and 100; the tracker names 10."""
        config = tiny_config()
        place, _ = saved(tmp_path / "saved", "mbridge", config, reference=True)
        for number in (9, 10, 100):
            shutil.copytree(place, tmp_path / "saved" / f"iter_{number:07d}")
        shutil.rmtree(place)
        (tmp_path / "saved" / "latest_checkpointed_iteration.txt").write_text("10")
        return tmp_path / "saved"

    def test_the_trackers_is_marked_and_described(self, saves: Path) -> None:
        found = inspect(saves)
        assert [(one.name, one.number) for one in found.iterations] == [
            *(("iter_0000009", 9), ("iter_0000010", 10), ("iter_0000100", 100)),
        ]
        assert [one.number for one in found.iterations if one.tracked] == [10]
        assert found.directory == saves / "iter_0000010"
        assert found.converts and "--iteration" not in found.next[0]

    @pytest.mark.parametrize("how", ["colon", "option", "folder"])
    def test_one_that_is_named(self, saves: Path, how: str) -> None:
        paths = {"colon": f"{saves}:9", "option": saves, "folder": saves / "iter_0000009"}
        found = inspect(paths[how], InspectOptions(iteration=9 if how == "option" else None))
        assert found.directory == saves / "iter_0000009"
        assert found.iteration == 9
        told = shlex.split(found.next[0])
        assert told[4:] == ([] if how == "folder" else ["--iteration", "9"])

    def test_one_that_is_not_there(self, saves: Path) -> None:
        with pytest.raises(NotACheckpoint, match="iteration 11"):
            inspect(f"{saves}:11")

    def test_without_a_tracker_the_latest_and_how_to_name_it(self, saves: Path) -> None:
        (saves / "latest_checkpointed_iteration.txt").unlink()
        found = inspect(saves)
        assert found.directory == saves / "iter_0000100"
        assert not any(one.tracked for one in found.iterations)
        assert "holds several checkpoints" in found.why_not
        assert shlex.split(found.next[0])[-2:] == ["--iteration", "100"]

    def test_a_tracker_that_names_one_that_is_gone(self, saves: Path) -> None:
        (saves / "latest_checkpointed_iteration.txt").write_text("200")
        found = inspect(saves)
        assert "iter_0000200: is missing" in found.why_not
        assert len(found.iterations) == 3

    def test_of_actor_and_critic_each_is_offered(self, saves: Path) -> None:
        (saves / "latest_checkpointed_iteration.txt").unlink()
        shutil.rmtree(saves / "huggingface")
        for number, name in ((9, "actor"), (10, "critic"), (100, "")):
            source = saves / f"iter_{number:07d}"
            if name:
                (saves / "global_step_5").mkdir(exist_ok=True)
                source.rename(saves / "global_step_5" / name)
            else:
                shutil.rmtree(source)
        (saves / "global_step_5" / "critic").rename(saves / "global_step_5" / "policy")
        found = inspect(saves)
        places = [saves / "global_step_5" / name for name in ("actor", "policy")]
        assert list(found.next) == [f"vlconv inspect {place}" for place in places]


class TestNoConversion:
    def test_a_save_that_was_interrupted(self, tmp_path: Path) -> None:
        place, _ = saved(tmp_path / "saved", "mbridge", tiny_config())
        (place / ".metadata").unlink()
        found = inspect(tmp_path / "saved")
        assert (found.format, found.converts, found.next) == ("torch_dist", False, ())
        assert ".metadata" in found.why_not
        assert found.file_bytes > 100_000
        assert found.topology["ranks_that_wrote"] == 1

    def test_a_rank_that_is_missing(self, tmp_path: Path) -> None:
        config = tiny()
        place = save_legacy(tmp_path / "saved", config, random_hf_tensors(config), Topology(tp=2))
        shutil.rmtree(place / "mp_rank_01")
        found = inspect(tmp_path / "saved")
        assert (found.format, found.converts, found.next) == ("torch", False, ())
        assert "mp_rank" in found.why_not

    def test_names_of_another_program(self, tmp_path: Path) -> None:
        from trainers.saving import save

        save(tmp_path / "saved", {"model.gpt.wte.weight": torch.zeros(3, 5), "model.gpt.h.0.w": torch.zeros(7)}, None)
        found = inspect(tmp_path / "saved")
        assert (found.kind, found.layout, found.converts, found.model) == ("megatron", "", False, None)
        assert "fit no layout" in found.why_not
        assert found.parameters == 22

    def test_a_model_of_another_family(self, tmp_path: Path) -> None:
        write_tiny_hf(tmp_path / "hf")
        path = tmp_path / "hf" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "llava"}))
        found = inspect(tmp_path / "hf")
        assert found.model and found.model.model_type == "llava"
        assert not found.converts and "llava" in found.why_not
        assert len(found.tensors) == len(tiny_shapes(tiny_config()))

    def test_config_and_tokenizer_alone(self, tmp_path: Path) -> None:
        write_tiny_hf(tmp_path / "hf")
        (tmp_path / "hf" / "model.safetensors").unlink()
        found = inspect(tmp_path / "hf")
        assert not found.converts
        assert found.title == "Hugging Face directory without weights"
        assert found.model and found.model.model_type == "qwen3_vl"

    def test_a_reference_of_another_size(self, tmp_path: Path) -> None:
        _, tensors = saved(tmp_path / "saved", "mbridge", tiny_config(), reference=True)
        path = tmp_path / "saved" / "huggingface" / "config.json"
        path.write_text(json.dumps(tiny_config(text={"hidden_size": 128})))
        found = inspect(tmp_path / "saved")
        assert not found.converts
        assert found.layout == "mbridge"
        assert found.model and found.model.sizes["text_config.hidden_size"] == 64
        assert found.parameters == sum(tensor.numel() for tensor in tensors.values())

    @pytest.mark.parametrize("make", ["nothing", "empty", "file"])
    def test_what_is_no_checkpoint_at_all(self, tmp_path: Path, make: str) -> None:
        place = tmp_path / "x"
        if make == "empty":
            place.mkdir()
        elif make == "file":
            place.write_text("x")
        with pytest.raises(NotACheckpoint):
            inspect(place)


@pytest.mark.parametrize("side", ["mcore", "hf"])
def test_the_next_command_is_pasted_and_works(tmp_path: Path, side: str) -> None:
    write_tiny_hf(tmp_path / "a model's files")
    if side == "mcore":
        hf2mcore(tmp_path / "a model's files", tmp_path / "my $runs")
    found = inspect(tmp_path / ("my $runs" if side == "mcore" else "a model's files"))
    for command in found.next:
        name, *words = shlex.split(command)
        assert name == "vlconv"
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
    again = shlex.split(inspect(found.path).next[0])[3]
    assert again == shlex.split(found.next[0])[3] + "-2"  # the first name is taken now


def test_the_manifest_is_told(tmp_path: Path) -> None:
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(format="torch"))
    made = inspect(tmp_path / "mcore").manifest
    assert made and made["command"] == "hf2mcore"
    assert made["files"] == len(json.loads((tmp_path / "mcore" / "vlconv.json").read_text())["files"])
    assert inspect(tmp_path / "hf").manifest is None


def test_a_refused_dry_run_says_what_was_recognised(tmp_path: Path) -> None:
    place, _ = saved(tmp_path / "my runs", "mbridge", tiny_config())
    with pytest.raises(ReferenceFault) as refusal:
        mcore2hf(tmp_path / "my runs", tmp_path / "hf", Mcore2HfOptions(dry_run=True))
    (note,) = refusal.value.__notes__
    assert "mbridge" in note and "torch_dist" in note
    assert shlex.split(note.partition("For more: ")[2]) == ["vlconv", "inspect", str(place)]


def test_of_two_models_that_no_name_tells_apart_both_are_named(tmp_path: Path) -> None:
    saved(tmp_path / "saved", "megatron-lm", tiny_config("qwen3_next"))
    found = inspect(tmp_path / "saved")
    assert found.model and set(found.model.model_type.split(" or ")) == {"qwen3_next", "qwen3_5_moe_text"}
    assert "no name tells them apart" in found.why_not
    assert "--reference" in found.next[0]


def test_words_that_contradict_the_tensors(tmp_path: Path) -> None:
    place, _ = saved(tmp_path / "saved", "mbridge", tiny_config())
    (place / "run_config.yaml").write_text("model:\n  hidden_size: 128\n")
    found = inspect(tmp_path / "saved")
    assert "text_config.hidden_size is 64 by the tensors' shapes, but 128" in found.why_not
    assert found.model and found.model.sizes["text_config.hidden_size"] == 64
    assert found.next == ()


def test_words_that_are_no_sizes(tmp_path: Path) -> None:
    place, _ = saved(tmp_path / "saved", "mbridge", tiny_config())
    odd = {"num_layers": ".inf", "hidden_size": str(10**30), "ffn_hidden_size": "[1, x]", "rotary_base": "[1, 2]"}
    (place / "run_config.yaml").write_text("model:\n" + "".join(f"  {name}: {v}\n" for name, v in odd.items()))
    found = inspect(tmp_path / "saved")
    (said,) = (one for one in found.states if one.where == "run_config.yaml")
    assert said.entries == 4
    assert {name: value for name, value in said.facts.items() if name != "hidden_size"} == {
        "num_layers": "inf",
        "rotary_base": [1, 2],
    }
    assert str(said.facts["hidden_size"]).startswith("1000")
    json.dumps(found.as_dict(), allow_nan=False)


def test_scales_are_no_parameters(tmp_path: Path) -> None:
    """FP8 or not, a model has as many."""
    tensors = tiny_fp8(tmp_path / "fp8", "qwen3")
    found, plain = inspect(tmp_path / "fp8"), tiny_shapes(tiny_config("qwen3"))
    assert found.converts and len(found.tensors) == len(tensors) > len(plain)
    assert found.parameters == sum(map(prod, plain.values())) == sum(found.dtypes.values())
    assert sum(block.parameters for block in found.blocks) == found.parameters
    assert sum(block.tensors for block in found.blocks) == len(plain)
    assert found.weight_bytes == sum(tensor.nbytes for tensor in tensors.values())
