"""Conversion without a reference:
the config comes from what the checkpoint states and shows, or a refusal lists exactly what it does not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from logits import logits
from mcore.legacy import save_legacy
from mcore.save import save
from mcore.tiny import random_hf_tensors, tiny, tiny_2_5
from mcore.topology import Topology
from references import differing, read_hf, reference_config
from run_config import run_config, vision_and_ids
from tiny import IDS, tiny_config, write_tiny_hf
from trainers.places import TRAINERS, write

from vlconv.converters import Hf2McoreOptions, Mcore2HfOptions, VerifyOptions, hf2mcore, mcore2hf, verify
from vlconv.converters.checkpoint.mcore_side import open_mcore_side
from vlconv.converters.errors import MismatchError, NotComparable, ReferenceFault
from vlconv.converters.formats.dcp.write import plan_torch_dist
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import RELEASES, model_of
from vlconv.converters.models.shared.config import ModelConfig
from vlconv.converters.options import McoreSource
from vlconv.converters.tensors.rules import table
from vlconv.converters.tensors.spec import TensorSpec

SAMPLED = 2

KINDS = ("qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl")


@pytest.fixture
def alone(tmp_path: Path) -> Any:
    """A tiny Hugging Face model, and the checkpoint that hf2mcore made of it, with nothing beside it."""

    def make(config: dict[str, Any], **options: Any) -> tuple[dict[str, torch.Tensor], Path]:
        tensors = write_tiny_hf(tmp_path / "original", config)
        hf2mcore(tmp_path / "original", tmp_path / "mcore", Hf2McoreOptions(manifest=False, **options))
        shutil.rmtree(tmp_path / "mcore" / "huggingface")
        (tmp_path / "mcore" / "release" / "run_config.yaml").unlink(missing_ok=True)
        return tensors, tmp_path / "mcore" / "release"

    return make


def at(kind: str, field: str) -> str:
    """Where a tiny model's config.json has a field of the language model."""
    return f"text_config.{field}" if "text_config" in tiny_config(kind) else field


@pytest.mark.versions
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_config_suffices(tmp_path: Path, alone: Any, kind: str, tied: bool) -> None:
    config = tiny_config(kind, tied=tied)
    tensors, release = alone(config, make_vocab_size_divisible_by=128)
    (release / "run_config.yaml").write_text(run_config(config))
    report = mcore2hf(tmp_path / "mcore", tmp_path / "hf")
    assert differing(read_hf(tmp_path / "hf"), tensors) == []
    assert torch.equal(logits(tmp_path / "hf"), logits(tmp_path / "original"))
    assert report.data["reference"] is None
    assert report.data["config_from"]["vision_config.num_heads in run_config.yaml"] == ["vision_config.num_heads"]
    assert at(kind, "num_hidden_layers") in report.data["config_from"]["the tensors' shapes"]
    said = report.told["config_from"]
    assert said.startswith(
        f"the checkpoint itself, for want of a reference\nthe tensors' shapes: {at(kind, 'hidden_size')}, "
    )
    assert said.count("\nrun_config.yaml: ") == 1
    assert "not_provable" not in report.told
    assert sorted(p.name for p in (tmp_path / "hf").iterdir()) == ["config.json", "model.safetensors", "vlconv.json"]
    needed = ["tokenizer", "preprocessor_config.json", "video_preprocessor_config.json"]
    assert report.data["missing_side_files"] == [*needed, "generation_config.json", "chat template"]
    assert any(warning.endswith(": generation_config.json, chat template") for warning in report.warnings)
    assert f"until these are copied into it: {', '.join(needed)}; Qwen/" in report.last
    assert report.last in report.warnings
    assert [step.name for step in report.steps] == ["verify"]


def test_verify_needs_none_either(tmp_path: Path, alone: Any) -> None:
    config = tiny_config("qwen3_vl")
    _, release = alone(config)
    with pytest.raises(NotComparable, match="there is no Hugging Face reference beside the checkpoint"):
        verify(release)
    (release / "run_config.yaml").write_text(run_config(config))
    assert verify(release).status == "same"
    assert verify(release, None, VerifyOptions(on_disk=tmp_path)).status == "same"
    shutil.copytree(release, tmp_path / "copy")
    assert verify(release, tmp_path / "copy").status == "same"


def test_the_reference_beside_the_checkpoint_comes_first(tmp_path: Path, alone: Any) -> None:
    config = tiny_config("qwen3_vl")
    _, release = alone(config)
    (release / "run_config.yaml").write_text(run_config(config))
    shutil.copytree(tmp_path / "original", release / "huggingface")
    assert mcore2hf(release, tmp_path / "hf").data["reference"] == str(release / "huggingface")


MODELS = {
    "dense": tiny(),
    "tied": tiny(tied=True),
    "experts": tiny(moe=True),
    "some dense layers": tiny(moe=True, dense_layers=[1]),
    "qwen2.5": tiny_2_5(),
}
NEVER_IN_ARGS = {
    "qwen3_vl": ["vision_config.num_heads", "vision_config.deepstack_visual_indexes"],
    "qwen3_vl_moe": ["vision_config.num_heads", "vision_config.deepstack_visual_indexes"],
    "qwen2_5_vl": ["vision_config.num_heads", "vision_config.fullatt_block_indexes", "vision_config.window_size"],
}


@pytest.mark.parametrize("model", MODELS)
def test_megatrons_args_lack_exactly_the_vision_tower(tmp_path: Path, model: str) -> None:
    config = MODELS[model]
    hf = random_hf_tensors(config)
    checkpoint = save(tmp_path / "ckpt", config, hf, Topology(tp=2), padded=True)
    missing_then_there(tmp_path, checkpoint, config, hf)


@pytest.mark.parametrize("model", ["tied", "experts", "qwen2.5"])
def test_of_rank_files_the_whole_shapes_count(tmp_path: Path, model: str) -> None:
    """A rank's own shapes show nothing.

    And what looks like an output layer on the last stage is a copy of the embedding.
    """
    config = MODELS[model]
    hf = random_hf_tensors(config)
    checkpoint = save_legacy(tmp_path / "ckpt", config, hf, Topology(tp=2, pp=2), padded=True)
    missing_then_there(tmp_path, checkpoint, config, hf)


def missing_then_there(tmp_path: Path, checkpoint: Path, config: ModelConfig, hf: dict[str, torch.Tensor]) -> None:
    """Refused with the list of what args do not say; converted once a file says it."""
    with pytest.raises(ReferenceFault) as error:
        mcore2hf(checkpoint, tmp_path / "hf")
    assert error.value.what.endswith(f"it does not say itself: {', '.join(NEVER_IN_ARGS[config.model_type])}")
    assert "--reference" in error.value.hint
    assert not (tmp_path / "hf").exists()
    reference = reference_config(config)
    (checkpoint / "run_config.yaml").write_text(
        yaml.safe_dump({"model": vision_and_ids(reference) | dict.fromkeys((n for n in IDS if n.endswith("_id")), 7)})
    )
    report = mcore2hf(checkpoint, tmp_path / "hf")
    assert differing(read_hf(tmp_path / "hf"), hf) == []
    assert report.data["config_from"]["rotary_base in the checkpoint's args"]
    made = json.loads((tmp_path / "hf" / "config.json").read_text())
    text, wanted = (c.get("text_config", c) for c in (made, reference))
    assert {name: text[name] for name in ("rope_theta", "rms_norm_eps", "vocab_size", "num_attention_heads")} == {
        name: wanted[name] for name in ("rope_theta", "rms_norm_eps", "vocab_size", "num_attention_heads")
    }
    assert text.get("mlp_only_layers", []) == wanted.get("mlp_only_layers", [])
    assert made["tie_word_embeddings"] is config.text.tied


def test_a_tie_that_nothing_tells(tmp_path: Path) -> None:
    config = tiny(tied=True)
    checkpoint = save_legacy(tmp_path / "ckpt", config, random_hf_tensors(config), Topology(pp=2), args=False)
    with pytest.raises(ReferenceFault, match=r"does not say itself: .*tie_word_embeddings"):
        mcore2hf(checkpoint, tmp_path / "hf")


@pytest.mark.parametrize("kind", KINDS)
def test_rolls_config_holds_the_whole_of_it(tmp_path: Path, kind: str) -> None:
    config = tiny_config(kind)
    tensors = write_tiny_hf(tmp_path / "original", config)
    write(tmp_path / "saved", "roll", config, tensors)
    beside = tmp_path / "saved" / "mca_config.json"
    beside.write_text(json.dumps(json.loads(beside.read_text()) | {"hf_config_json": json.dumps(config)}))
    report = mcore2hf(tmp_path / "saved", tmp_path / "hf")
    assert differing(read_hf(tmp_path / "hf"), tensors) == []
    assert report.data["config_from"] == {"hf_config_json in mca_config.json": ["all of it"]}
    assert torch.equal(logits(tmp_path / "hf"), logits(tmp_path / "original"))


def test_a_config_inside_that_contradicts_the_rest(tmp_path: Path) -> None:
    config = tiny_config("qwen3_vl")
    write(tmp_path / "saved", "roll", config, write_tiny_hf(tmp_path / "original", config))
    beside = tmp_path / "saved" / "mca_config.json"
    beside.write_text(
        json.dumps(json.loads(beside.read_text()) | {"hf_config_json": json.dumps(config), "rotary_base": 10000})
    )
    with pytest.raises(
        MismatchError,
        match=r"the checkpoint itself contradicts the checkpoint:\n.*rope_theta is 5000000.*rotary_base is 10000",
    ):
        mcore2hf(tmp_path / "saved", tmp_path / "hf")


@pytest.mark.parametrize("name", [name for name in TRAINERS if name != "language-model"])
def test_each_layout_says_what_is_missing(tmp_path: Path, name: str) -> None:
    kind = TRAINERS[name].kinds[0]
    config = tiny_config(kind)
    write(tmp_path / "saved", name, config, write_tiny_hf(tmp_path / "original", config))
    with pytest.raises(ReferenceFault) as error:
        mcore2hf(tmp_path / "saved", tmp_path / "hf")
    missing = set(error.value.what.partition("does not say itself: ")[2].split(", "))
    tower = {"vision_config.num_heads"} if "vision_config" in config else set()
    assert tower | {at(kind, "rms_norm_eps")} <= missing
    # Shapes are seen in every layout.
    shown = {at(kind, "num_hidden_layers"), at(kind, "hidden_size")}
    assert not missing & (shown | {"vision_config.depth", "vision_config.intermediate_size"})


@pytest.mark.parametrize(
    "release",
    [r for r in RELEASES if r.name in ("Qwen3-VL-2B", "Qwen3-VL-30B-A3B", "Qwen2.5-VL-7B")],
    ids=lambda r: r.name,
)
def test_shapes_of_an_official_release_suffice(tmp_path: Path, release: Any) -> None:
    """The files are sparse: metadata and what stands around each tensor in full, no weights."""
    layout = LAYOUTS[model_of(release.config).default_layout]
    shapes = table(layout.rules(release.config, -(-release.config.text.vocab // 512) * 512)).left()
    specs = {name: TensorSpec(name, shape, "bfloat16") for name, shape in shapes.items()}
    for file in plan_torch_dist(specs, ("layers", "deepstack_merger_list"), (), 0):
        with (tmp_path / file.name).open("wb") as sparse:
            sparse.truncate(file.size)
            around = file.seal([1] * len(file.pieces)) if file.seal else []
            for offset, data in [*file.literals, *around]:
                sparse.seek(offset)
                sparse.write(data)
    side = open_mcore_side(tmp_path, McoreSource())
    unproven = set(side.known.unproven)
    assert side.config == release.config
    assert side.known.reference.release == f"{release.name}, the one release that fits"
    kind = release.config.model_type
    assert unproven >= {at(kind, "rope_theta"), at(kind, "rms_norm_eps"), "vision_config.num_heads"}
    assert not unproven & {at(kind, "num_hidden_layers"), at(kind, "hidden_size"), "tie_word_embeddings"}


def test_a_statement_that_contradicts_a_shape(tmp_path: Path, alone: Any) -> None:
    config = tiny_config("qwen3_vl")
    _, release = alone(config)
    (release / "run_config.yaml").write_text(run_config(config).replace("num_query_groups: 4", "num_query_groups: 2"))
    with pytest.raises(
        MismatchError,
        match=r"num_key_value_heads is (2 by num_query_groups in run_config.yaml|4 by the tensors' shapes)",
    ):
        mcore2hf(release, tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_padding_is_explained_by_the_option(tmp_path: Path, alone: Any) -> None:
    config = tiny_config("qwen3_vl")
    tensors, release = alone(config, make_vocab_size_divisible_by=7 * 47)
    (release / "run_config.yaml").write_text(run_config(config))
    with pytest.raises(MismatchError, match="329 rows"):
        mcore2hf(release, tmp_path / "hf")
    mcore2hf(release, tmp_path / "hf", Mcore2HfOptions(make_vocab_size_divisible_by=47))
    assert differing(read_hf(tmp_path / "hf"), tensors) == []
