"""What may be replaced: one earlier output of the same kind; anything else is refused by name, and
nothing is touched.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from standing import TRACKER, add, content, files, hf_model, inodes, iteration, names, output, save_directory

from vlconv.converters.errors import TargetError
from vlconv.converters.output.directory import OutputDirectory
from vlconv.converters.output.replaceable import CHECKPOINT, HF_MODEL, ITERATION, Kind, existing
from vlconv.converters.output.target import Target


def two_models(folder: Path) -> Path:
    hf_model(folder / "a")
    hf_model(folder / "b")
    return folder


def five_iterations(folder: Path) -> Path:
    return save_directory(folder, *(f"iter_000000{n}" for n in range(1, 6)), tracker="5")


def one_trained(folder: Path) -> Path:
    return save_directory(folder, "iter_0000005", tracker="5")


def named_twice(folder: Path) -> Path:
    (save_directory(folder, "release", tracker="release") / "iter_0000000").symlink_to("release")
    return folder


def with_thesis(stand: Callable[[Path], Path]) -> Callable[[Path], Path]:
    return lambda folder: files(stand(folder), "thesis.pdf")


def model_in_git(folder: Path) -> Path:
    return files(hf_model(folder), ".git/config", ".git/objects/pack/x")


REFUSED = [
    (HF_MODEL, two_models, "it holds a, b"),
    (HF_MODEL, lambda folder: files(folder, "thesis.pdf"), "it holds thesis.pdf"),
    (HF_MODEL, lambda folder: files(folder, "README.md", "LICENSE"), "it holds LICENSE, README.md"),
    (HF_MODEL, with_thesis(hf_model), "it holds thesis.pdf"),
    (HF_MODEL, model_in_git, "it holds .git"),
    (HF_MODEL, lambda folder: files(hf_model(folder), "other/config.json"), "it holds other"),
    (HF_MODEL, one_trained, f"it holds huggingface, iter_0000005, {TRACKER}"),
    (HF_MODEL, iteration, "it holds .metadata, __0_0.distcp, __0_1.distcp, common.pt, metadata.json"),
    (
        CHECKPOINT,
        five_iterations,
        "it holds iter_0000001, iter_0000002, iter_0000003, iter_0000004, iter_0000005",
    ),
    (CHECKPOINT, with_thesis(one_trained), "it holds thesis.pdf"),
    (CHECKPOINT, lambda folder: files(one_trained(folder), "iter_0000005/my/notes"), "it holds iter_0000005/my"),
    (CHECKPOINT, lambda folder: files(one_trained(folder), *"abcdefg"), "it holds a, b, c, d, e and 2 more"),
    (CHECKPOINT, hf_model, "it holds config.json, merges.txt, model.safetensors, tokenizer.json"),
    (CHECKPOINT, two_models, "it holds a, b"),
    (ITERATION, lambda folder: files(iteration(folder), "thesis.pdf"), "it holds thesis.pdf"),
    (ITERATION, one_trained, f"it holds huggingface, iter_0000005, {TRACKER}"),
]


@pytest.mark.parametrize(("kind", "stand", "says"), REFUSED)
def test_refused_by_name(tmp_path: Path, kind: Kind, stand: Callable[[Path], Path], says: str) -> None:
    place = stand(tmp_path / "out")
    before = inodes(tmp_path)
    with pytest.raises(TargetError) as caught:
        existing(place, kind, {})
    assert caught.value.what.endswith(f"is not replaced, for it is not {kind.name} and nothing else: {says}")
    assert inodes(tmp_path) == before


@pytest.mark.parametrize(
    ("kind", "stand", "files_", "nbytes"),
    [
        (HF_MODEL, hf_model, 4, 12),
        (CHECKPOINT, one_trained, 8, 5 * 12 + 1 + 2 * 3),
        (CHECKPOINT, lambda folder: save_directory(folder, "release", tracker="release"), 8, 5 * 7 + 7 + 2 * 3),
        (CHECKPOINT, named_twice, 8, 5 * 7 + 7 + 2 * 3),
        (CHECKPOINT, iteration, 5, 15),
        (ITERATION, iteration, 5, 15),
        (CHECKPOINT, lambda folder: files(folder, "release/mp_rank_00/model_optim_rng.pt"), 1, 3),
    ],
)
def test_replaced_and_measured(
    tmp_path: Path, kind: Kind, stand: Callable[[Path], Path], files_: int, nbytes: int
) -> None:
    found = existing(stand(tmp_path / "out"), kind, {})
    assert (found.kind, found.files, found.nbytes) == (kind, files_, nbytes)
    assert str(found) == f"{kind.name}, {nbytes} B in {files_} file{'s' if files_ > 1 else ''}"


@pytest.mark.parametrize("change", ["content", "new", "gone", "touched", "exchanged"])
def test_every_change_is_seen(tmp_path: Path, change: str) -> None:
    place = one_trained(tmp_path / "out")
    before, path = existing(place, CHECKPOINT, {}), place / "iter_0000005" / "common.pt"
    assert existing(place, CHECKPOINT, {}) == before
    if change == "content":
        path.write_text("longer")
    elif change == "new":
        (place / "iter_0000005" / "__1_0.distcp").touch()
    elif change == "gone":
        path.unlink()
    elif change == "touched":
        path.touch()
    else:
        times = path.parent.stat()
        path.rename(tmp_path / "common.pt")
        shutil.copy2(tmp_path / "common.pt", path)
        os.utime(path.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert existing(place, CHECKPOINT, {}) != before


class TestWhatComesAgain:
    """A file of an unusual name is no loss when the output holds the same again: a rerun must not refuse its own
    output.
    """

    @pytest.fixture
    def reference(self, tmp_path: Path) -> Path:
        return files(tmp_path / "reference", "glossary.dat", "tokenizer.json", text="usual")

    def run(self, target: Target, reference: Path, folder: str) -> None:
        copies = {folder: sorted(reference.iterdir())}
        with OutputDirectory(target, copies=copies) as new:
            hf_model(new) if target.kind is HF_MODEL else iteration(new / "release")
            for path in copies[folder]:
                files(new, f"{folder}/{path.name}".strip("/"), text=path.read_text())

    @pytest.mark.parametrize(("kind", "folder"), [(HF_MODEL, ""), (CHECKPOINT, "huggingface")])
    def test_a_second_run(self, tmp_path: Path, reference: Path, kind: Kind, folder: str) -> None:
        target = Target(path=tmp_path / "out", kind=kind, overwrite=True)
        self.run(target, reference, folder)
        assert (tmp_path / "out" / folder / "glossary.dat").exists()
        self.run(target, reference, folder)
        (reference / "glossary.dat").unlink()
        with pytest.raises(TargetError, match=r"it holds (huggingface/)?glossary\.dat\n"):
            self.run(target, reference, folder)

    def test_not_when_it_differs_or_lies_elsewhere(self, tmp_path: Path, reference: Path) -> None:
        target = Target(path=tmp_path / "out", kind=HF_MODEL, overwrite=True)
        self.run(target, reference, "")
        (tmp_path / "out" / "glossary.dat").write_text("mine!")
        with pytest.raises(TargetError, match=r"it holds glossary\.dat\n"):
            self.run(target, reference, "")
        (tmp_path / "out" / "glossary.dat").write_text("USUAL")  # of the same size and time
        shutil.copystat(reference / "glossary.dat", tmp_path / "out" / "glossary.dat")
        with pytest.raises(TargetError, match=r"it holds glossary\.dat\n"):
            self.run(target, reference, "")
        (tmp_path / "out" / "glossary.dat").unlink()
        files(tmp_path / "out", "deep/glossary.dat", text="usual")
        with pytest.raises(TargetError, match=r"it holds deep\n"):
            self.run(target, reference, "")


class TestHints:
    """--overwrite is offered where it helps, --as-iteration where it does."""

    def hint(self, path: Path, kind: Kind, **options: bool) -> str:
        with pytest.raises(TargetError) as caught:
            output(path, kind, **options).check()
        return caught.value.hint

    def test_something_else(self, tmp_path: Path) -> None:
        for overwrite in (True, False):
            hint = self.hint(files(tmp_path / "out", "thesis.pdf"), CHECKPOINT, overwrite=overwrite)
            assert hint == "Name another target, or move what is in the way elsewhere."

    def test_trained_iterations(self, tmp_path: Path) -> None:
        for overwrite in (True, False):
            assert "--as-iteration N adds" in self.hint(five_iterations(tmp_path), CHECKPOINT, overwrite=overwrite)
        assert "--as-iteration" not in self.hint(tmp_path, HF_MODEL, overwrite=True)

    def test_an_earlier_output(self, tmp_path: Path) -> None:
        assert "add --overwrite" in self.hint(one_trained(tmp_path), CHECKPOINT)


def test_an_iterations_own_directory_is_no_target(tmp_path: Path) -> None:
    """A directory of iterations would take its place, and the trainer find nothing there."""
    save = five_iterations(tmp_path / "save")
    before = inodes(tmp_path)
    for overwrite in (True, False):
        with pytest.raises(TargetError, match="is itself an iteration") as caught:
            add(save / "iter_0000003", None, overwrite=overwrite)
        assert f"Name {save} with --as-iteration N" in caught.value.hint
    assert inodes(tmp_path) == before


def test_a_single_trained_iteration_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """What --overwrite without --as-iteration means."""
    save = one_trained(tmp_path / "save")
    add(save, None, overwrite=True)
    assert names(tmp_path) == ["save"] and names(save) == ["huggingface", TRACKER, "release"]
    assert content(save)[TRACKER] == "release"
