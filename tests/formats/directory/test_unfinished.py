"""An output that is not finished is no source: not by its own name, nor by that of a folder in it, nor found below."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusing import refused, snapshot
from tiny import write_tiny_hf

from vlconv.converters import Hf2McoreOptions, hf2mcore, mcore2hf, mcore2mcore, verify
from vlconv.converters.errors import NotACheckpoint, NotComparable

MARKER = ".vlconv-partial"  # its name in every version: a newer one must know what an older one left

READS_MEGATRON = [mcore2hf, mcore2mcore]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good model in both forms: hf/ and mcore/."""
    work = tmp_path_factory.mktemp("model")
    write_tiny_hf(work / "hf")
    hf2mcore(work / "hf", work / "mcore", Hf2McoreOptions())
    return work


def killed(work: Path, output: Path) -> Path:
    """What a run leaves that was killed after its last byte, and before its output took its place."""
    staging = work / "out.partial"
    staging.mkdir()
    (staging / MARKER).touch()
    shutil.copytree(output, staging / "new")
    return staging


@pytest.mark.parametrize("command", READS_MEGATRON)
@pytest.mark.parametrize("folder", [".", "new", "new/release"])
def test_megatron(tmp_path: Path, model: Path, command: Callable[..., Any], folder: str) -> None:
    staging = killed(tmp_path, model / "mcore")
    no(command, staging / folder, tmp_path / "target", staging)


def test_what_was_to_be_replaced(tmp_path: Path, model: Path) -> None:
    """Between two renames of a run that was killed: the next run puts it back."""
    staging = killed(tmp_path, model / "mcore")
    (staging / "new").rename(staging / "old")
    no(mcore2hf, staging / "old", tmp_path / "target", staging)


@pytest.mark.parametrize("folder", [".", "new"])
def test_hugging_face(tmp_path: Path, model: Path, folder: str) -> None:
    staging = killed(tmp_path, model / "hf")
    no(hf2mcore, staging / folder, tmp_path / "target", staging)


@pytest.mark.parametrize("side", ["hf", "mcore"])
def test_verify(tmp_path: Path, model: Path, side: str) -> None:
    staging = killed(tmp_path, model / side)
    for sides in [(staging / "new",), (staging / "new", model / "hf"), (model / "hf", staging / "new")]:
        with pytest.raises(NotComparable) as caught:
            verify(*sides)
        assert f"{staging / 'new'}: an unfinished output of vlconv" in caught.value.what


def test_by_another_name(tmp_path: Path, model: Path) -> None:
    staging = killed(tmp_path, model / "mcore")
    (tmp_path / "link").symlink_to(staging / "new")
    no(mcore2hf, tmp_path / "link", tmp_path / "target", staging)


@pytest.mark.parametrize("name", ["out", "iter_0000007"])
def test_is_passed_over_below(tmp_path: Path, model: Path, name: str) -> None:
    """The only finished one is taken. A link leads to the other, as folders of trainers would."""
    save = tmp_path / "save"
    shutil.copytree(model / "mcore" / "release", save / "iter_0000005")
    killed(save, model / "mcore" / "release")
    (save / name).symlink_to("out.partial/new")
    assert verify(save, model / "hf").status == "same"
    (save / "out.partial" / MARKER).unlink()
    with pytest.raises(NotComparable, match="holds several checkpoints"):
        verify(save, model / "hf")


def test_nothing_else_below(tmp_path: Path, model: Path) -> None:
    (tmp_path / "save").mkdir()
    killed(tmp_path / "save", model / "mcore" / "release")
    (tmp_path / "save" / "iter_0000007").symlink_to("out.partial/new")
    refused(
        mcore2hf, tmp_path / "save", tmp_path / "target", fault=NotACheckpoint, says="an unfinished output of vlconv"
    )


def test_once_it_is_complete_it_is_a_source(tmp_path: Path, model: Path) -> None:
    staging = killed(tmp_path, model / "mcore")
    (staging / "new").rename(tmp_path / "out")
    assert verify(tmp_path / "out", model / "hf").status == "same"


def no(command: Callable[..., Any], source: Path, target: Path, staging: Path) -> None:
    before = snapshot(staging)
    says = f"{source}: an unfinished output of vlconv"
    refused(command, source, target, fault=NotACheckpoint, says=says, hint=f"{staging} can be removed")
    assert snapshot(staging) == before
