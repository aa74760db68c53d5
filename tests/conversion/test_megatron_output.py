"""What a Megatron checkpoint consists of besides its weights: the names that trainers look for, and run_config.yaml."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import megatron_bridge
import pytest
import torch
from mcore.load import load_and_compare
from mcore.tiny import random_hf_tensors, tiny
from mcore.topology import Topology
from references import differing, read_hf, write_hf
from tiny import IDS, tiny_config, write_tiny_hf
from torch import Tensor

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    VerifyOptions,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
    verify,
)
from vlconv.converters.config.facts import geometry_facts, runtime_facts
from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import model_for

READ_BY_MEGATRON_BRIDGE = [
    ("mbridge", "qwen3_vl"),
    ("mbridge", "qwen3_vl_moe"),
    ("megatron-bridge-0.3", "qwen3_vl"),
    ("megatron-bridge-0.3", "qwen3_vl_moe"),
    ("megatron-bridge-qwen2_5", "qwen2_5_vl"),
]
BY_OTHERS = [
    (layout.name, layout.models[0])
    for layout in LAYOUTS.values()
    if "torch_dist" in layout.writes and not layout.run_config
]
NEWER = [("mbridge", "qwen3_5"), ("mbridge", "qwen3_5_moe")]
NEWER += [("megatron-lm", kind) for kind in LAYOUTS["megatron-lm"].models]
"""What Megatron-Bridge reads besides: of these the names alone are looked at."""
PROVIDERS = {
    "qwen3_vl": "Qwen3VLModelProvider",
    "qwen3_vl_moe": "Qwen3VLMoEModelProvider",
    "qwen2_5_vl": "Qwen25VLModelProvider",
}


@pytest.fixture
def original(tmp_path: Path) -> dict[str, Tensor]:
    return write_tiny_hf(tmp_path / "hf", tiny_config())


def convert(tmp_path: Path, **options: Any) -> Path:
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(**options))
    return tmp_path / "mcore"


@pytest.mark.parametrize(("layout", "kind"), READ_BY_MEGATRON_BRIDGE)
def test_megatron_bridge_finds_it(tmp_path: Path, layout: str, kind: str) -> None:
    """Its public loaders find it by iter_*, its training as a release, which is asked for weights alone."""
    write_tiny_hf(tmp_path / "hf", tiny_config(kind))
    mcore = convert(tmp_path, as_layout=layout)
    folder = megatron_bridge.loaded_by_auto_bridge(mcore)
    assert (folder / ".metadata").is_file()
    assert megatron_bridge.provider(folder).provider == PROVIDERS[kind]
    assert megatron_bridge.loaded_by_training(mcore) == (mcore / "release", True)
    assert megatron_bridge.run_config(mcore / "release") == megatron_bridge.run_config(folder)
    assert folder.samefile(mcore / "release")


@pytest.mark.usefixtures("original")
def test_padding_is_no_part_of_the_model(tmp_path: Path) -> None:
    """Megatron-Bridge exports all rows of the model that it built, so the model it builds has none of padding."""
    mcore = convert(tmp_path, make_vocab_size_divisible_by=128)
    provider = megatron_bridge.provider(mcore / "release")
    assert (provider.vocab_size, provider.should_pad_vocab) == (300, False)


def test_all_that_megatron_bridge_reads_is_looked_at() -> None:
    readers = [layout for layout in LAYOUTS.values() if layout.run_config]
    assert {(layout.name, kind) for layout in readers for kind in layout.models} == {*READ_BY_MEGATRON_BRIDGE, *NEWER}


@pytest.mark.parametrize(("layout", "kind"), NEWER)
def test_newer_models_have_what_it_looks_for(tmp_path: Path, layout: str, kind: str) -> None:
    write_tiny_hf(tmp_path / "hf", tiny_config(kind))
    mcore = convert(tmp_path, as_layout=layout)
    folder = megatron_bridge.loaded_by_auto_bridge(mcore)
    model = megatron_bridge.run_config(folder)["model"]
    assert model["_target_"].startswith("megatron.bridge.models.")
    assert (model["num_layers"], model["vocab_size"], model.get("mtp_num_layers")) == (4, 300, HEADS.get(kind))


HEADS = dict.fromkeys(("qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text"), 1)


@pytest.mark.parametrize(("layout", "kind"), BY_OTHERS)
def test_for_other_trainers_nothing_is_added(tmp_path: Path, layout: str, kind: str) -> None:
    write_tiny_hf(tmp_path / "hf", tiny_config(kind))
    mcore = convert(tmp_path, as_layout=layout)
    assert sorted(path.name for path in mcore.iterdir()) == [
        "huggingface",
        "latest_checkpointed_iteration.txt",
        "release",
        "vlconv.json",
    ]
    assert not list(mcore.rglob("run_config.yaml"))


@pytest.mark.parametrize("kind", PROVIDERS)
def test_ms_swift_finds_it(tmp_path: Path, kind: str) -> None:
    """`--mcore_model DIR`: the tracker is a number, and common.pt has args, which say that no state was saved."""
    write_tiny_hf(tmp_path / "hf", tiny_config(kind))
    mcore = convert(tmp_path, as_layout="ms-swift", as_iteration=1)
    number = int((mcore / "latest_checkpointed_iteration.txt").read_text())
    args = torch.load(mcore / f"iter_{number:07d}" / "common.pt", weights_only=False)["args"]
    assert (args.tensor_model_parallel_size, args.pipeline_model_parallel_size) == (1, 1)
    assert (args.no_save_optim, args.no_save_rng, args.ckpt_format) == (True, True, "torch_dist")
    report = mcore2hf(mcore, tmp_path / "back")
    assert report.told["agrees_with"] == "the checkpoint's args"
    assert report.warnings == []


@pytest.mark.usefixtures("original")
def test_a_release_for_ms_swift_is_warned_of(tmp_path: Path) -> None:
    """Its loader reads the tracker file as a number, whatever it holds."""
    report = hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(as_layout="ms-swift"))
    assert [line for line in report.warnings if "write it with --as-iteration 1" in line]
    for options in (Hf2McoreOptions(as_layout="ms-swift", as_iteration=1, overwrite=True), Hf2McoreOptions()):
        report = hf2mcore(tmp_path / "hf", tmp_path / f"other{options.as_iteration}", options)
        assert not [line for line in report.warnings if "--as-iteration" in line]


@pytest.mark.usefixtures("original")
def test_rank_files_get_none(tmp_path: Path) -> None:
    """Megatron-Bridge reads no legacy format."""
    mcore = convert(tmp_path, format="torch")
    assert not (mcore / "iter_0000000").exists()
    assert not list(mcore.rglob("run_config.yaml"))


@pytest.mark.usefixtures("original")
def test_a_number_asked_for_is_the_only_name(tmp_path: Path) -> None:
    mcore = convert(tmp_path, as_iteration=7)
    assert megatron_bridge.loaded_by_auto_bridge(mcore) == mcore / "iter_0000007"
    assert megatron_bridge.loaded_by_training(mcore) == (mcore / "iter_0000007", False)
    assert megatron_bridge.provider(mcore / "iter_0000007").num_layers == 4
    assert [path for path in mcore.iterdir() if path.is_symlink()] == []


@pytest.mark.usefixtures("original")
def test_the_second_name_moves_along(tmp_path: Path) -> None:
    mcore = convert(tmp_path).rename(tmp_path / "moved")
    assert (mcore / "iter_0000000").readlink() == Path("release")
    assert megatron_bridge.provider(megatron_bridge.loaded_by_auto_bridge(mcore)).hidden_size == 64


@pytest.mark.usefixtures("original")
def test_what_is_said_of_it(tmp_path: Path) -> None:
    report = hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(dry_run=True))
    assert report.told["also_named"] == "iter_0000000, a link to release, for loaders that look for iter_*"
    assert report.data["links"] == {"iter_0000000": "release"}
    assert "release/run_config.yaml" in report.data["files"]


@pytest.mark.usefixtures("original")
def test_a_file_system_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoint is written all the same; Megatron-Bridge's loaders take the folder itself."""

    def refuse(self: Path, target: str, target_is_directory: bool = False) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    report = hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    assert report.status == "done"
    assert [line for line in report.warnings if line.startswith("iter_0000000 could not be made a link to release:")]
    release = tmp_path / "mcore" / "release"
    assert megatron_bridge.loaded_by_auto_bridge(release) == release
    assert megatron_bridge.provider(release).num_layers == 4


@pytest.mark.parametrize(("layout", "kind"), READ_BY_MEGATRON_BRIDGE)
@pytest.mark.parametrize("reference", [True, False])
def test_and_back(tmp_path: Path, layout: str, kind: str, reference: bool) -> None:
    """Its own run_config.yaml agrees with the reference, and suffices without one: nothing else needs be known."""
    tensors = write_tiny_hf(tmp_path / "hf", tiny_config(kind))
    mcore = convert(tmp_path, as_layout=layout, make_vocab_size_divisible_by=128, manifest=False)
    if not reference:
        shutil.rmtree(mcore / "huggingface")
    report = mcore2hf(mcore, tmp_path / "back")
    assert differing(read_hf(tmp_path / "back"), tensors) == []
    assert report.data["reference"] == (str(mcore / "huggingface") if reference else None)
    made, config = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("back", "hf"))
    model = model_for(config)
    for facts in (runtime_facts, geometry_facts):
        assert facts(made, model.config(made)) == facts(config, model.config(config))
    assert {key: made[key] for key in IDS if key in made} == {key: IDS[key] for key in IDS if key in made}
    assert verify(mcore, tmp_path / "hf").status == verify(mcore).status == "same"


@pytest.mark.parametrize("name", ["", "release", "iter_0000000"])
@pytest.mark.parametrize("tracker", [True, False])
def test_every_name_is_read(tmp_path: Path, original: dict[str, Tensor], name: str, tracker: bool) -> None:
    mcore = convert(tmp_path)
    if not tracker:
        (mcore / "latest_checkpointed_iteration.txt").unlink()
    mcore2hf(mcore / name, tmp_path / "back")
    assert differing(read_hf(tmp_path / "back"), original) == []


def test_by_its_iteration(tmp_path: Path, original: dict[str, Tensor]) -> None:
    mcore2hf(convert(tmp_path), tmp_path / "back", Mcore2HfOptions(iteration=0))
    assert differing(read_hf(tmp_path / "back"), original) == []


@pytest.mark.usefixtures("original")
def test_a_reference_that_contradicts_it(tmp_path: Path) -> None:
    mcore = convert(tmp_path)
    write_tiny_hf(tmp_path / "other", tiny_config(text={"rope_theta": 1000000}))
    with pytest.raises(Exception, match=r"rope_theta is 1000000, but the checkpoint's rotary_base is 5000000"):
        verify(mcore, None, VerifyOptions(references=(str(tmp_path / "other"),)))


@pytest.mark.usefixtures("original")
def test_from_megatron_to_megatron(tmp_path: Path) -> None:
    mcore2mcore(convert(tmp_path), tmp_path / "relaid", Mcore2McoreOptions(as_layout="megatron-bridge-0.3"))
    folder = megatron_bridge.loaded_by_auto_bridge(tmp_path / "relaid")
    assert folder.name == "iter_0000000"
    assert megatron_bridge.provider(folder).num_layers == 4
    assert verify(tmp_path / "relaid", tmp_path / "hf").status == "same"


@pytest.mark.usefixtures("original")
def test_overwritten_by_another_of_its_kind(tmp_path: Path) -> None:
    convert(tmp_path)
    assert not list(convert(tmp_path, overwrite=True, format="torch").glob("iter_*"))
    assert (convert(tmp_path, overwrite=True) / "iter_0000000").is_symlink()
    convert(tmp_path, as_iteration=3)
    assert sorted(p.name for p in (tmp_path / "mcore").iterdir() if p.is_symlink()) == ["iter_0000000"]


def test_megatron_core_loads_it_by_its_second_name(tmp_path: Path) -> None:
    config = tiny()
    hf = random_hf_tensors(config)
    hf2mcore(write_hf(tmp_path / "hf", config, hf), tmp_path / "mcore")
    assert load_and_compare(tmp_path / "mcore" / "iter_0000000", config, hf, Topology(tp=2)) == []
