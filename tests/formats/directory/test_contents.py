"""What a directory of one model or one checkpoint consists of: what is its own goes unnamed, and all else is seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from standing import files, hf_model, iteration, save_directory

from vlconv.converters.formats.directory.contents import (
    is_iteration,
    is_save_directory,
    iterations,
    strange_in_checkpoint,
    strange_in_iteration,
    strange_in_model,
)


def strange(function, folder):
    found = function(folder)
    return None if found is None else [str(path.relative_to(folder)) for path in found]


class TestModel:
    @pytest.mark.parametrize(
        "name",
        [
            "model-00001-of-00002.safetensors",
            "generation_config.json",
            "chat_template.jinja",
            "vocab.json",
            "video_preprocessor_config.json",
            "README.md",
            "LICENSE",
            ".gitattributes",
        ],
    )
    def test_its_own(self, tmp_path: Path, name: str) -> None:
        assert strange(strange_in_model, files(hf_model(tmp_path), name)) == []

    @pytest.mark.parametrize(
        "name",
        [
            "thesis.txt",
            "notes.md",
            "docs/a.md",
            "models/other/config.json",
            "checkpoint-500/",
            ".git/config",
            ".cache/huggingface/x",
            "adapter_model.safetensors",
            "trainer_state.json",
            "optimizer.pt",
            "train.py",
            "iter_0000010/.metadata",
            "tokenizer.json.bak",
            "model-1-of-2.safetensors",
        ],
    )
    def test_not_its_own(self, tmp_path: Path, name: str) -> None:
        assert strange(strange_in_model, files(hf_model(tmp_path), name)) == [name.split("/")[0]]

    def test_what_the_index_names_is_its_own_and_nothing_besides(self, tmp_path: Path) -> None:
        files(hf_model(tmp_path), "a.safetensors", "b.safetensors")
        assert strange(strange_in_model, tmp_path) == ["a.safetensors", "b.safetensors"]
        index = {"weight_map": {"x": "a.safetensors", "y": "thesis.txt", "z": 3}}
        (files(tmp_path, "thesis.txt") / "model.safetensors.index.json").write_text(json.dumps(index))
        assert strange(strange_in_model, tmp_path) == ["b.safetensors", "thesis.txt"]

    def test_a_damaged_index_explains_nothing(self, tmp_path: Path) -> None:
        files(hf_model(tmp_path), "model.safetensors.index.json", "a.safetensors")
        assert strange(strange_in_model, tmp_path) == ["a.safetensors"]

    def test_links_to_files_are_files_and_links_to_folders_are_not(self, tmp_path: Path) -> None:
        """A hub cache links its files; removing a link loses nothing."""
        (files(hf_model(tmp_path / "m"), "../blob") / "vocab.json").symlink_to("../blob")
        (tmp_path / "m" / "tokenizer.model").symlink_to(tmp_path)
        (tmp_path / "m" / "added_tokens.json").symlink_to("nowhere")
        assert strange(strange_in_model, tmp_path / "m") == ["added_tokens.json", "tokenizer.model"]

    @pytest.mark.parametrize("names", [["config.json"], ["model.safetensors"], ["README.md", "LICENSE"], ["x/"]])
    def test_none_at_all(self, tmp_path: Path, names: list[str]) -> None:
        assert strange_in_model(files(tmp_path, *names)) is None


RANKS = ["mp_rank_00/model_optim_rng.pt", "mp_rank_01_003/model_rng.pt", "mp_rank_01_003/distrib_optim.pt"]


class TestIteration:
    @pytest.mark.parametrize(
        "name", ["__3_12.distcp", "run_config.yaml", "train_state.pt", "args.json", "huggingface/config.json"]
    )
    def test_its_own(self, tmp_path: Path, name: str) -> None:
        assert strange(strange_in_iteration, files(iteration(tmp_path), name)) == []

    @pytest.mark.parametrize(
        "name", ["thesis.txt", "x.distcp", "iter_0000010/.metadata", "huggingface/model.safetensors", RANKS[0], "logs/"]
    )
    def test_not_its_own(self, tmp_path: Path, name: str) -> None:
        found = strange(strange_in_iteration, files(iteration(tmp_path), name))
        assert found == [name if name.startswith("huggingface") else name.split("/")[0]]

    def test_rank_files(self, tmp_path: Path) -> None:
        assert strange(strange_in_iteration, files(tmp_path, *RANKS, "args.json")) == []
        files(tmp_path, "mp_rank_00/thesis.txt", "mp_rank_x/model_rng.pt", "common.pt", "mp_rank_02")
        assert strange(strange_in_iteration, tmp_path) == ["common.pt", "mp_rank_00", "mp_rank_02", "mp_rank_x"]

    def test_a_linked_folder(self, tmp_path: Path) -> None:
        files(iteration(tmp_path / "a"), "../h/config.json", "../r/model_rng.pt")
        (tmp_path / "a" / "huggingface").symlink_to("../h")
        assert strange(strange_in_iteration, tmp_path / "a") == ["huggingface"]
        (files(tmp_path / "b", RANKS[0]) / "mp_rank_01").symlink_to("../r")
        assert strange(strange_in_iteration, tmp_path / "b") == ["mp_rank_01"]

    def test_none_at_all(self, tmp_path: Path) -> None:
        assert strange_in_iteration(files(tmp_path, "huggingface/config.json", "common.pt")) is None


class TestCheckpoint:
    @pytest.mark.parametrize("folder", ["release", "iter_0000010", "iter_5"])
    @pytest.mark.parametrize("tracker", ["10", None])
    def test_its_own(self, tmp_path: Path, folder: str, tracker: str | None) -> None:
        save_directory(tmp_path, folder, tracker=tracker)
        assert strange(strange_in_checkpoint, files(tmp_path, "latest_train_state.pt", "args.json")) == []

    def test_rank_files(self, tmp_path: Path) -> None:
        files(tmp_path, *(f"release/{name}" for name in RANKS))
        assert strange(strange_in_checkpoint, tmp_path) == []

    def test_a_bare_one(self, tmp_path: Path) -> None:
        assert strange(strange_in_checkpoint, iteration(tmp_path)) == []
        assert strange(strange_in_checkpoint, files(tmp_path, "thesis.txt")) == ["thesis.txt"]

    def test_a_second_name_of_the_iteration(self, tmp_path: Path) -> None:
        save_directory(tmp_path, "release", tracker="release")
        (tmp_path / "iter_0000000").symlink_to("release")
        assert strange(strange_in_checkpoint, tmp_path) == []
        assert iterations(tmp_path) == [tmp_path / "release"]
        (tmp_path / "iter_0000001").symlink_to(tmp_path / "release")  # not one of ours: it would dangle elsewhere
        (tmp_path / "other").symlink_to("release")
        (tmp_path / "iter_0000002").symlink_to("iter_0000003")
        assert strange(strange_in_checkpoint, tmp_path) == ["iter_0000001", "iter_0000002", "other", "release"]

    def test_several_iterations(self, tmp_path: Path) -> None:
        save_directory(tmp_path, "iter_0000001", "iter_0000002", "release", tracker="2")
        assert strange(strange_in_checkpoint, tmp_path) == ["iter_0000001", "iter_0000002", "release"]

    @pytest.mark.parametrize(
        "name",
        [
            "thesis.txt",
            "tb_logs/events.1",
            ".git/config",
            "iter_0000010/thesis.txt",
            "huggingface/model.safetensors",
            "huggingface/deep/config.json",
            "global_step_5/x",
            ".iter_0000020.partial/new/x",
            "model.safetensors",
        ],
    )
    def test_not_its_own(self, tmp_path: Path, name: str) -> None:
        save_directory(tmp_path, "iter_0000010", tracker="10")
        found = strange(strange_in_checkpoint, files(tmp_path, name))
        assert found is not None and len(found) == 1 and name.startswith(found[0])

    def test_an_iteration_that_holds_no_checkpoint_or_is_a_link(self, tmp_path: Path) -> None:
        files(tmp_path / "a", "iter_0000010/thesis.txt")
        assert strange(strange_in_checkpoint, tmp_path / "a") == ["iter_0000010"]
        iteration(tmp_path / "there")
        files(tmp_path / "b", "latest_checkpointed_iteration.txt")
        (tmp_path / "b" / "iter_0000010").symlink_to("../there")
        assert strange(strange_in_checkpoint, tmp_path / "b") == ["iter_0000010"]

    def test_none_at_all(self, tmp_path: Path) -> None:
        assert strange_in_checkpoint(files(tmp_path, "latest_checkpointed_iteration.txt", "huggingface/x")) is None


@pytest.mark.parametrize(
    ("names", "is_one"),
    [
        (["latest_checkpointed_iteration.txt"], True),
        (["iter_0000010/"], True),
        (["release/.metadata"], True),
        (["release/mp_rank_00/model_rng.pt"], True),
        (["release/notes.txt"], False),
        (["iter_0000010"], False),
        (["iter_x/", "myrelease/"], False),
        (["thesis.txt"], False),
        ([], False),
    ],
)
def test_a_save_directory(tmp_path: Path, names: list[str], is_one: bool) -> None:
    assert is_save_directory(files(tmp_path, *names)) is is_one
    assert not is_save_directory(tmp_path / "nowhere")


def test_an_iteration_is_told_by_name_and_content(tmp_path: Path) -> None:
    assert is_iteration(iteration(tmp_path / "iter_0000010")) and is_iteration(iteration(tmp_path / "release"))
    assert not is_iteration(iteration(tmp_path / "mine"))
    assert not is_iteration(files(tmp_path / "iter_0000011", "x"))
