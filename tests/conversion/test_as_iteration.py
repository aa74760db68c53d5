"""--as-iteration in a save directory: the iteration comes beside the others, each is read as what it is, nothing else
changes.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from refusing import refused, snapshot
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    Mcore2McoreOptions,
    hf2mcore,
    mcore2hf,
    mcore2mcore,
    verify,
)
from vlconv.converters.errors import TargetError

TRACKER = "latest_checkpointed_iteration.txt"
FORMATS: list[dict[str, Any]] = [{}, {"format": "torch", "tensor_model_parallel_size": 2}]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two trained states of one model, another model, and a save directory with the first at iteration 5."""
    work = tmp_path_factory.mktemp("models")
    write_tiny_hf(work / "five", seed=5)
    write_tiny_hf(work / "ten", seed=10)
    write_tiny_hf(work / "deeper", tiny_config(text={"num_hidden_layers": 6}))
    hf2mcore(work / "five", work / "save", Hf2McoreOptions(as_iteration=5))
    return work


@pytest.fixture
def save(models: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(models / "save", tmp_path / "save"))


def same(save: Path, model: Path, **options: Any) -> bool:
    """Whether what is read there is that model, bit for bit."""
    out = save.parent / "read"
    mcore2hf(save, out, Mcore2HfOptions(**options))
    found = verify(out, model).status
    shutil.rmtree(out)
    return found == "same"


@pytest.mark.parametrize("form", FORMATS, ids=["torch_dist", "torch"])
@pytest.mark.parametrize("set_latest", [False, True])
def test_it_comes_beside_the_others(models: Path, save: Path, form: dict[str, Any], set_latest: bool) -> None:
    before = snapshot(save)
    options = Hf2McoreOptions(as_iteration=10, set_latest=set_latest, **form)
    report = hf2mcore(models / "ten", save, options)
    after = snapshot(save)
    assert {n: f for n, f in after.items() if not n.startswith("iter_0000010") and n != TRACKER} == {
        n: f for n, f in before.items() if n != TRACKER
    }
    assert (after[TRACKER] != before[TRACKER]) is set_latest
    assert report.data["added_to"] == {"path": str(save), "iteration": "iter_0000010", "others": ["iter_0000005"]}
    assert report.data["tracker"] == ("10" if set_latest else "5") and "replaces" not in report.data
    assert same(save, models / ("ten" if set_latest else "five"))
    assert same(save, models / "five", iteration=5) and same(save, models / "ten", iteration=10)


def test_it_brings_its_own_files(models: Path, save: Path, tmp_path: Path) -> None:
    """Those of the save directory stay its trainer's."""
    ten = Path(shutil.copytree(models / "ten", tmp_path / "ten"))
    (ten / "chat_template.jinja").write_text("of ten")
    hf2mcore(ten, save, Hf2McoreOptions(as_iteration=10))
    report = mcore2hf(save, tmp_path / "out", Mcore2HfOptions(iteration=10))
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "of ten"
    assert str(save / "iter_0000010" / "huggingface") in report.told["config_from"]
    assert not (save / "huggingface" / "chat_template.jinja").exists()


def test_a_second_time_only_with_overwrite_and_that_one_alone(models: Path, save: Path) -> None:
    options = Hf2McoreOptions(as_iteration=10)
    hf2mcore(models / "five", save, options)
    refused(hf2mcore, models / "ten", save, options, fault=TargetError, says="iter_0000010 exists", hint="--overwrite")
    before = snapshot(save)
    report = hf2mcore(models / "ten", save, Hf2McoreOptions(as_iteration=10, overwrite=True))
    held = {n: size for n, (_, size) in before.items() if n.startswith("iter_0000010/")}
    assert report.data["replaces"]["path"] == str(save / "iter_0000010")
    assert report.data["replaces"]["bytes"] == sum(held.values())
    after = snapshot(save)
    assert [n for n in before if after[n] != before[n] and not n.startswith("iter_0000010")] == []
    assert same(save, models / "ten", iteration=10) and same(save, models / "five")


def test_a_dry_run_tells_the_same_and_changes_nothing(models: Path, save: Path) -> None:
    before = snapshot(save.parent)
    planned = hf2mcore(models / "ten", save, Hf2McoreOptions(as_iteration=10, set_latest=True, dry_run=True))
    assert snapshot(save.parent) == before
    done = hf2mcore(models / "ten", save, Hf2McoreOptions(as_iteration=10, set_latest=True))
    for name in ("added_to", "tracker"):
        assert planned.told[name] == done.told[name] and planned.data[name] == done.data[name]


def test_from_one_iteration_to_another(models: Path, save: Path) -> None:
    source = save / "iter_0000005"
    report = mcore2mcore(source, save, Mcore2McoreOptions(as_iteration=10, format="torch", set_latest=True))
    assert report.status == "done"
    assert (save / "iter_0000010" / "mp_rank_00").is_dir() and same(save, models / "five")


def test_a_save_directory_of_another_model(models: Path, save: Path) -> None:
    options = Hf2McoreOptions(as_iteration=10, overwrite=True)
    refused(
        hf2mcore,
        models / "deeper",
        save,
        options,
        fault=TargetError,
        says=("the save directory of another model", "text_config.num_hidden_layers 4 there, 6 here"),
    )


def test_a_save_directory_of_no_model_we_know(models: Path, save: Path) -> None:
    for text, says in (('{"model_type": "llama"}', "llama"), ("{", "not valid JSON")):
        (save / "huggingface" / "config.json").write_text(text)
        refused(
            hf2mcore, models / "ten", save, Hf2McoreOptions(as_iteration=10), fault=TargetError, says=("no model", says)
        )


def test_a_save_directory_whose_config_does_not_say_tied(models: Path, save: Path) -> None:
    import json

    path = save / "huggingface" / "config.json"
    config = json.loads(path.read_text())
    del config["tie_word_embeddings"], config["text_config"]["tie_word_embeddings"]
    path.write_text(json.dumps(config))
    hf2mcore(models / "ten", save, Hf2McoreOptions(as_iteration=10))


def test_without_config_of_the_save_directory(models: Path, save: Path) -> None:
    shutil.rmtree(save / "huggingface")
    hf2mcore(models / "ten", save, Hf2McoreOptions(as_iteration=10))
    assert not (save / "huggingface").exists() and same(save, models / "ten", iteration=10)


def test_where_no_iteration_is_yet(models: Path, tmp_path: Path) -> None:
    (tmp_path / "save").mkdir()
    hf2mcore(models / "ten", tmp_path / "save", Hf2McoreOptions(as_iteration=10))
    assert (tmp_path / "save" / TRACKER).read_text() == "10" and same(tmp_path / "save", models / "ten")


def test_one_that_fails_leaves_the_save_directory_as_it_was(models: Path, save: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    bad = Path(shutil.copytree(models / "ten", tmp_path / "bad"))
    tensors = load_file(bad / "model.safetensors")
    tensors[next(iter(tensors))][...] = torch.nan
    save_file(tensors, bad / "model.safetensors")
    before = snapshot(save)
    with pytest.raises(Exception, match="not all weights are numbers"):
        hf2mcore(bad, save, Hf2McoreOptions(as_iteration=10, strict=True, set_latest=True))
    assert snapshot(save) == before


def test_what_is_unfinished_is_not_read(models: Path, save: Path) -> None:
    """Without a tracker the only checkpoint is taken; one that is being written, or was killed, is none."""
    (save / TRACKER).unlink()
    (save / ".iter_0000010.partial").mkdir()
    (save / ".iter_0000010.partial" / ".vlconv-partial").touch()
    shutil.copytree(save / "iter_0000005", save / ".iter_0000010.partial" / "new" / "iter_0000010")
    assert same(save, models / "five")
