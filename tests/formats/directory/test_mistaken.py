"""A path that is not what was asked for: what it is, and the path or the command that is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlconv.converters.checkpoint.hf_side import open_hf_side
from vlconv.converters.errors import NotACheckpoint, VlconvError
from vlconv.converters.formats import is_mcore
from vlconv.converters.formats.directory.locate import TRACKER, locate


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A Hugging Face model, a save directory with a tracker, one without, legacy rank files; all empty files."""
    for file in (
        *("hf/config.json", "hf/model.safetensors", "hf/tokenizer.json"),
        *(f"save/{TRACKER}", "save/iter_0000010/.metadata", "save/iter_0000010/common.pt"),
        *("save/iter_0000010/__0_0.distcp", "save/huggingface/config.json"),
        *("steps/global_step_5/actor/.metadata", "steps/global_step_5/data/x", "steps/log/x"),
        *("legacy/release/mp_rank_00/model_optim_rng.pt", "plain/x", "none/config.json"),
        *(f"pruned/{TRACKER}", "pruned/log/x", "hf/onnx/x"),
        *("both/config.json", "both/model.safetensors", "both/.metadata"),
    ):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "save" / TRACKER).write_text("10")
    return tmp_path


def mcore(path: Path) -> VlconvError:
    with pytest.raises(NotACheckpoint) as caught:
        locate(path, is_mcore)
    return caught.value


def hf(path: Path) -> VlconvError:
    with pytest.raises(VlconvError) as caught:
        open_hf_side(path)
    return caught.value


def test_a_hugging_face_model_taken_for_a_checkpoint(work: Path) -> None:
    fault = mcore(work / "hf")
    assert fault.what == f"{work / 'hf'}: no Megatron checkpoint there, but a Hugging Face model"
    assert fault.hint.endswith(f"vlconv hf2mcore {work / 'hf'} MCORE")
    fault = mcore(work / "hf" / "config.json")
    assert "a file of a Hugging Face model" in fault.what and f"vlconv hf2mcore {work / 'hf'} MCORE" in fault.hint


@pytest.mark.parametrize("path", ["save", "save/iter_0000010", "steps", "legacy", "legacy/release", "pruned"])
def test_a_checkpoint_taken_for_a_hugging_face_model(work: Path, path: str) -> None:
    fault = hf(work / path)
    assert isinstance(fault, NotACheckpoint)
    assert fault.what == f"{work / path}: a Megatron checkpoint, no Hugging Face model"
    assert fault.hint.endswith(f"vlconv mcore2hf {work / path} HF")


def test_a_file_taken_for_a_hugging_face_model(work: Path) -> None:
    fault = hf(work / "hf" / "config.json")
    assert (fault.what, fault.hint) == (
        f"{work / 'hf/config.json'}: a file of a Hugging Face model, not its directory",
        f"Give {work / 'hf'}.",
    )
    fault = hf(work / "save/iter_0000010/common.pt")
    assert f"a file of {work / 'save/iter_0000010'}, a Megatron checkpoint" in fault.what
    assert fault.hint.endswith(f"vlconv mcore2hf {work / 'save/iter_0000010'} HF")


@pytest.mark.parametrize(
    ("path", "root", "kind"),
    [
        ("save/iter_0000010/common.pt", "save/iter_0000010", "a file of"),
        ("save/iter_0000010/.metadata", "save/iter_0000010", "a file of"),
        ("save/latest_checkpointed_iteration.txt", "save", "a file of"),
        ("save/huggingface", "save", "lies inside"),
        ("legacy/release/mp_rank_00", "legacy/release", "lies inside"),
        ("legacy/release/mp_rank_00/model_optim_rng.pt", "legacy/release", "a file of"),
        ("steps/global_step_5/data", "steps", "lies inside"),
        ("steps/log", "steps", "lies inside"),
        ("pruned/log", "pruned", "lies inside"),
    ],
)
def test_a_path_inside_a_checkpoint_names_its_root(work: Path, path: str, root: str, kind: str) -> None:
    fault = mcore(work / path)
    assert fault.what == f"{work / path}: {kind} a Megatron checkpoint, not the checkpoint"
    assert fault.hint == f"Give {work / root}."


def test_seen_from_inside(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders above are named as the user would write them, and in full where the path ends."""
    monkeypatch.chdir(work / "save")
    assert mcore(Path("iter_0000010/common.pt")).hint == "Give iter_0000010."
    assert mcore(Path("huggingface")).hint == f"Give {work / 'save'}."
    monkeypatch.chdir(work / "save" / "huggingface")
    assert mcore(Path()).hint == f"Give {work / 'save'}."


def test_a_directory_that_is_both_is_read_as_what_was_asked_for(work: Path) -> None:
    assert locate(work / "both", is_mcore) == work / "both"
    assert "both/config.json" in hf(work / "both").what  # which is empty here


@pytest.mark.parametrize("path", ["plain", "none", "hf/onnx"])
def test_what_shows_nothing_is_told_as_before(work: Path, path: str) -> None:
    """A folder with checkpoints beside it, but not of one save directory, is not inside anything."""
    assert mcore(work / path).hint.startswith("Looked for .metadata")
    assert hf(work / "plain").what.endswith("config.json is missing")
