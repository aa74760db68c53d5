"""An iteration in a save directory: it comes beside the others, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from standing import TRACKER, add, content, files, inodes, iteration, names, output, save_directory

from vlconv.converters.errors import TargetError
from vlconv.converters.output.replaceable import CHECKPOINT, HF_MODEL
from vlconv.converters.report import Report

OTHERS = ["iter_0000005", "iter_0000008"]
HF = {"huggingface/config.json": "new", "huggingface/vocab.json": "new"}


@pytest.fixture
def save(tmp_path: Path) -> Path:
    return save_directory(tmp_path / "save", *OTHERS, tracker="8")


def kept(before: dict[str, int], save: Path, but: tuple[str, ...] = ()) -> bool:
    """Whether everything that was there is there, but for what begins with one of some names."""
    now = inodes(save)
    return all(now.get(name) == inode for name, inode in before.items() if not name.startswith(but or ("\0",)))


def told(save: Path, number: int = 10, **options: Any) -> Report:
    asked, report = output(save, CHECKPOINT, iteration=number, **options), Report("hf2mcore", "planned")
    asked.check()
    asked.describe(report)
    return report


class TestAdded:
    @pytest.mark.parametrize("overwrite", [True, False])
    def test_beside_the_others(self, save: Path, overwrite: bool) -> None:
        before = inodes(save)
        add(save, overwrite=overwrite)
        assert kept(before, save) and names(save.parent) == ["save"]
        assert names(save) == sorted(["huggingface", "iter_0000010", *OTHERS, TRACKER])
        assert (save / TRACKER).read_text() == "8"
        assert content(save / "iter_0000010") == dict.fromkeys(content(save / "iter_0000005"), "new") | HF

    def test_the_tracker_is_set_when_asked(self, save: Path) -> None:
        before = inodes(save)
        add(save, set_latest=True)
        assert kept(before, save, (TRACKER,)) and (save / TRACKER).read_text() == "10"

    @pytest.mark.parametrize("set_latest", [True, False])
    def test_where_there_is_no_tracker(self, tmp_path: Path, set_latest: bool) -> None:
        save = save_directory(tmp_path / "save", "release", tracker=None)
        add(save, set_latest=set_latest)
        assert (save / TRACKER).exists() is set_latest
        assert names(save / "release") == names(iteration(tmp_path / "x"))

    def test_where_there_is_only_a_tracker(self, tmp_path: Path) -> None:
        save = files(tmp_path / "save", TRACKER, "logs/events", text="8")
        before = inodes(save)
        add(save)
        assert kept(before, save) and names(save) == ["iter_0000010", TRACKER, "logs"]

    def test_where_anything_else_is(self, save: Path) -> None:
        """Nothing of it is touched, whatever it is."""
        before = inodes(files(save, "thesis.pdf", "logs/x", ".git/config"))
        add(save)
        assert kept(before, save)

    def test_an_empty_folder_of_that_name(self, save: Path) -> None:
        (save / "iter_0000010").mkdir()
        add(save)
        assert (save / "iter_0000010" / ".metadata").exists()

    def test_a_save_directory_that_is_a_link(self, save: Path) -> None:
        (save.parent / "link").symlink_to("save")
        add(save.parent / "link", set_latest=True)
        assert names(save.parent) == ["link", "save"] and (save / "iter_0000010").is_dir()

    def test_a_save_directory_whose_parent_is_not_writable(self, save: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("os.access", lambda path, mode: Path(path) == save)
        add(save)

    def test_from_another_iteration_of_the_same_directory(self, save: Path) -> None:
        add(save, sources=[save / "iter_0000005", save / "huggingface"])
        with pytest.raises(TargetError, match="lies inside the source"):
            add(save, 11, sources=[save])

    def test_two_at_once(self, save: Path) -> None:
        with output(save, CHECKPOINT, iteration=10) as new:
            iteration(new / "iter_0000010", "new")
            add(save, 11)
            assert names(save) == sorted([".iter_0000010.partial", "huggingface", "iter_0000011", *OTHERS, TRACKER])
            with pytest.raises(TargetError, match="another run is writing"):
                add(save, 10)
            with pytest.raises(TargetError, match="not one Megatron checkpoint"):
                add(save, None, overwrite=True)
        assert names(save) == sorted(["huggingface", "iter_0000010", "iter_0000011", *OTHERS, TRACKER])

    def test_not_while_the_whole_is_replaced(self, tmp_path: Path) -> None:
        save = save_directory(tmp_path / "save", "iter_0000005", tracker="5")
        with output(save, CHECKPOINT, overwrite=True) as new:
            iteration(new / "release")
            before = inodes(save)
            with pytest.raises(TargetError, match=r"another run is writing .*save\.partial"):
                add(save)
            assert inodes(save) == before

    def test_nothing_is_left_of_one_that_fails(self, save: Path) -> None:
        before = inodes(save)
        with pytest.raises(KeyboardInterrupt), output(save, CHECKPOINT, iteration=10, set_latest=True) as new:
            iteration(new / "iter_0000010", "new")
            raise KeyboardInterrupt
        assert inodes(save) == before

    def test_one_that_appears_meanwhile(self, save: Path) -> None:
        with (
            pytest.raises(TargetError, match="iter_0000010 came into being"),
            output(save, CHECKPOINT, iteration=10, set_latest=True) as new,
        ):
            iteration(new / "iter_0000010", "new")
            files(new, TRACKER, text="10")
            before = inodes(iteration(save / "iter_0000010", "a trainer's"))
        assert inodes(save / "iter_0000010") == before and (save / TRACKER).read_text() == "8"

    def test_a_new_save_directory_is_written_as_a_whole(self, tmp_path: Path) -> None:
        add(tmp_path / "save")
        assert names(tmp_path / "save") == ["huggingface", "iter_0000010", TRACKER]
        assert (tmp_path / "save" / TRACKER).read_text() == "10"


class TestReplaced:
    @pytest.mark.parametrize("set_latest", [True, False])
    def test_that_iteration_alone(self, save: Path, set_latest: bool) -> None:
        before = inodes(files(save, "thesis.pdf"))
        add(save, 5, overwrite=True, set_latest=set_latest)
        assert kept(before, save, ("iter_0000005", TRACKER)) and set(names(save)) == {n.split("/")[0] for n in before}
        assert set(content(save / "iter_0000005").values()) == {"new"}
        assert (save / TRACKER).read_text() == ("5" if set_latest else "8")

    def test_not_without_overwrite(self, save: Path) -> None:
        before = inodes(save.parent)
        with pytest.raises(TargetError, match=f"{save}/iter_0000005 exists") as caught:
            add(save, 5)
        assert "--overwrite: that iteration alone" in caught.value.hint
        assert inodes(save.parent) == before

    @pytest.mark.parametrize("name", ["iter_0000005/thesis.pdf", "iter_0000005/huggingface/model.safetensors"])
    def test_not_when_it_holds_more(self, save: Path, name: str) -> None:
        before = inodes(files(save, name).parent)
        with pytest.raises(TargetError, match=f"it holds {name.split('/', 1)[1]}"):
            add(save, 5, overwrite=True)
        assert inodes(save.parent) == before

    def test_not_a_link_or_a_file(self, save: Path) -> None:
        iteration(save.parent / "there")
        (save / "iter_0000010").symlink_to("../there")
        (save / "iter_0000011").touch()
        before = inodes(save.parent)
        for number, says in ((10, "is a link"), (11, "is a file")):
            with pytest.raises(TargetError, match=says):
                add(save, number, overwrite=True)
        assert inodes(save.parent) == before

    def test_not_the_source(self, save: Path) -> None:
        with pytest.raises(TargetError, match="is the source itself"):
            add(save, 5, overwrite=True, sources=[save / "iter_0000005"])

    def test_not_one_that_changes_meanwhile(self, save: Path) -> None:
        with (
            pytest.raises(TargetError, match="was changed"),
            output(save, CHECKPOINT, iteration=5, overwrite=True) as new,
        ):
            iteration(new / "iter_0000005", "new")
            files(save, "iter_0000005/__1_0.distcp")
            before = inodes(save / "iter_0000005")
        assert inodes(save / "iter_0000005") == before


class TestRefused:
    def test_a_directory_that_is_none(self, tmp_path: Path) -> None:
        files(tmp_path / "out", "thesis.pdf")
        with pytest.raises(TargetError, match="not empty"):
            add(tmp_path / "out")
        with pytest.raises(TargetError, match=r"it holds thesis\.pdf"):
            add(tmp_path / "out", overwrite=True)

    @pytest.mark.parametrize("overwrite", [True, False])
    def test_a_trainer_that_names_its_iterations_otherwise(self, tmp_path: Path, overwrite: bool) -> None:
        """Its tracker would name two."""
        save = files(tmp_path / "save", TRACKER, "global_step_10/actor/x", text="10")
        with pytest.raises(TargetError, match="holds global_step_10: its trainer would not find iter_0000010"):
            add(save, overwrite=overwrite)

    def test_a_hugging_face_model_never_goes_into_one(self, save: Path) -> None:
        with pytest.raises(TargetError, match="not one Hugging Face model"):
            output(save, HF_MODEL, iteration=None, overwrite=True).check()


class TestTold:
    def test_what_it_is_added_to(self, save: Path) -> None:
        report = told(save)
        assert dict(fact[:2] for fact in report.facts) == {
            "added_to": f"{save}: iter_0000010 beside iter_0000005, iter_0000008; config and tokenizer files go inside "
            "it, nothing else changes",
            "tracker": f"{TRACKER} says 8, and stays so: --set-latest lets it say 10",
        }
        assert report.data == {
            "added_to": {"path": str(save), "iteration": "iter_0000010", "others": OTHERS},
            "tracker": "8",
        }

    def test_many_others(self, tmp_path: Path) -> None:
        save = save_directory(tmp_path, *(f"iter_000000{n}" for n in range(1, 9)), tracker=None)
        assert "iter_0000004, iter_0000005 and 3 more;" in dict(f[:2] for f in told(save).facts)["added_to"]

    def test_what_is_replaced(self, save: Path) -> None:
        report = told(save, 5, overwrite=True)
        said = dict(fact[:2] for fact in report.facts)
        assert said["replaces"] == (
            f"{save}/iter_0000005: one iteration of a Megatron checkpoint, 60 B in 5 files; it is removed once the new "
            "one is complete"
        )
        assert "iter_0000005 beside iter_0000008;" in said["added_to"]
        assert report.data["added_to"]["others"] == ["iter_0000008"]

    @pytest.mark.parametrize(
        ("now", "sets", "says", "then"),
        [
            ("8", True, "says 8, and will say 10 once the iteration is there", "10"),
            ("10", False, "says 10, which is this iteration", "10"),
            ("10", True, "says 10, which is this iteration", "10"),
            ("release", False, "says release, and stays so: --set-latest lets it say 10", "release"),
            (None, True, "is new and says 10", "10"),
            (None, False, "there is none, and none is written: --set-latest does", None),
        ],
    )
    def test_the_tracker(self, tmp_path: Path, now: str | None, sets: bool, says: str, then: str | None) -> None:
        report = told(save_directory(tmp_path, "iter_0000005", tracker=now), set_latest=sets)
        assert dict(fact[:2] for fact in report.facts)["tracker"].endswith(says)
        assert report.data["tracker"] == then

    def test_megatron_bridge_has_a_tracker_of_its_own(self, save: Path) -> None:
        files(save, "latest_train_state.pt")
        assert not told(save).warnings
        assert "latest_train_state.pt, by which Megatron-Bridge" in told(save, set_latest=True).warnings[0]
