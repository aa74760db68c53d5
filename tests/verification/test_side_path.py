"""What verify is given: names that are there, two different directories, an iteration behind a colon."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import Hf2McoreOptions, NotComparable, VerifyOptions, hf2mcore, verify
from vlconv.converters.verification.side_path import SidePath, side_path


@pytest.fixture(scope="module")
def save(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A save directory with iterations 100 and 200 of different weights; hf100 and hf200 beside it."""
    work = tmp_path_factory.mktemp("verify")
    for number, seed in ((100, 1), (200, 2)):
        write_tiny_hf(work / f"hf{number}", tiny_config(), seed=seed)
        hf2mcore(work / f"hf{number}", work / f"only{number}", Hf2McoreOptions(as_iteration=number))
        shutil.copytree(work / f"only{number}" / f"iter_{number:07d}", work / "save" / f"iter_{number:07d}")
    shutil.copytree(work / "hf100", work / "save" / "huggingface")
    return work / "save"


class TestNames:
    def test_plain(self, tmp_path: Path) -> None:
        assert side_path(tmp_path) == side_path(str(tmp_path)) == SidePath(tmp_path)

    def test_with_an_iteration(self, tmp_path: Path) -> None:
        assert side_path(f"{tmp_path}:100") == SidePath(tmp_path, 100)

    def test_a_directory_of_that_very_name_comes_first(self, tmp_path: Path) -> None:
        (tmp_path / "a:1").mkdir()
        assert side_path(tmp_path / "a:1") == SidePath(tmp_path / "a:1")

    @pytest.mark.parametrize("name", ["typo", "typo:100", "x:"])
    def test_nothing_there(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(NotComparable, match="does not exist"):
            side_path(tmp_path / name)


def test_a_missing_b_is_said_before_a_is_opened(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()  # no checkpoint: opening it would say so
    with pytest.raises(NotComparable, match="typo does not exist"):
        verify(tmp_path / "a", tmp_path / "typo")


@pytest.mark.parametrize(
    ("a", "b", "iteration"),
    [
        ("only100", "only100", None),
        ("save", "save", 100),
        ("save:100", "save:100", None),
        ("save:200", "save/iter_0000200", None),
        ("hf100", "hf100", None),
        ("hf100", "link", None),
    ],
)
def test_a_directory_is_not_compared_with_itself(
    save: Path, monkeypatch: pytest.MonkeyPatch, a: str, b: str, iteration: int | None
) -> None:
    monkeypatch.chdir(save.parent)
    if not Path("link").exists():
        Path("link").symlink_to("hf100")
    with pytest.raises(NotComparable, match="A and B are the same directory") as fault:
        verify(a, b, VerifyOptions(iteration=iteration))
    assert "SAVE:100 SAVE:200" in fault.value.hint


def test_two_iterations_of_one_directory(save: Path) -> None:
    differ = verify(f"{save}:100", f"{save}:200")
    assert differ.status == "different"
    assert [differ.data[side]["source"] for side in "ab"] == [str(save / f"iter_0000{n}00") for n in (1, 2)]
    assert verify(f"{save}:100", save.parent / "hf100").status == "same"
    assert verify(save, save.parent / "hf200", VerifyOptions(iteration=200)).status == "same"
