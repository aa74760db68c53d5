"""Which directory is meant: by tracker, by --iteration, or because there is only one."""

from __future__ import annotations

import pytest

from vlconv.converters.errors import NotACheckpoint
from vlconv.converters.formats.directory.locate import TRACKER, locate


def holds(path):
    return any(child.name == "there" for child in path.iterdir())  # as a format does that lists the folder


@pytest.fixture
def tree(tmp_path):
    """Makes checkpoints in these folders, and a tracker file where a word is given."""

    def make(*folders, tracker=None):
        for folder in folders:
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "there").touch()
        if tracker is not None:
            (tmp_path / TRACKER).write_bytes(tracker if isinstance(tracker, bytes) else tracker.encode())
        return tmp_path

    return make


def fault_of(path, iteration=None):
    with pytest.raises(NotACheckpoint) as caught:
        locate(path, holds, iteration)
    assert caught.value.hint
    return caught.value


def refused(path, iteration=None):
    return fault_of(path, iteration).what


class TestWithoutTracker:
    @pytest.mark.parametrize(
        "folder",
        [
            ".",
            "iter_0000010",
            "release",
            "dist_ckpt",
            "global_step_5",
            "global_step_5/dist_ckpt",
            "global_step_5/actor/dist_ckpt",
            "iter_0000001/dist_model",
            "epoch1epochstep3globalstep4",  # AReaL: any name
            "whatever/dist_ckpt",
        ],
    )
    def test_the_only_one(self, tree, folder):
        root = tree(folder)
        (root / "huggingface").mkdir()
        assert locate(root, holds) == root / folder

    def test_a_link_is_a_second_name_of_the_only_one(self, tree):
        root = tree("release")
        (root / "iter_0000000").symlink_to("release")
        assert locate(root, holds) == root / "release"
        assert locate(root, holds, iteration=0) == root / "iter_0000000"

    def test_a_checkpoint_hides_what_is_below_it(self, tree):
        root = tree(".", "iter_0000010")
        assert locate(root, holds) == root

    def test_nothing_too_deep_or_under_an_unknown_name(self, tree):
        root = tree("a/b", "c/iter_0000001/release/dist_ckpt")
        assert "no Megatron checkpoint there" in refused(root)

    def test_several_are_listed(self, tree):
        root = tree("iter_0000010", "iter_0000020/dist_model", "other")
        said = refused(root)
        assert "holds several checkpoints" in said
        assert [line.strip() for line in said.splitlines()[1:]] == [
            str(root / f) for f in ("iter_0000010", "iter_0000020/dist_model", "other")
        ]

    def test_a_list_of_very_many_is_short(self, tree):
        said = refused(tree(*(f"iter_{i:07d}" for i in range(50)))).splitlines()
        assert len(said) == 22 and said[-1] == "  … and 30 more"

    def test_they_are_listed_in_the_order_of_their_numbers(self, tree):
        said = refused(tree("global_step_10", "global_step_100", "global_step_2"))
        assert [line.rpartition("_")[2] for line in said.splitlines()[1:]] == ["2", "10", "100"]

    @pytest.mark.parametrize("above", [".", "global_step_5"])
    def test_actor_and_critic_are_both_named(self, tree, above):
        root = tree("global_step_5/critic", "global_step_5/actor")
        fault = fault_of(root / above)
        assert [line.strip() for line in fault.what.splitlines()[1:]] == [
            str(root / "global_step_5" / name) for name in ("actor", "critic")
        ]
        assert "actor" in fault.hint and "--iteration" not in fault.hint

    def test_an_iteration_is_offered_where_it_tells_them_apart(self, tree):
        assert "--iteration N" in fault_of(tree("iter_0000010", "iter_0000020")).hint
        assert "--iteration" not in fault_of(tree("x/a/iter_0000010", "x/b/iter_0000010") / "x").hint

    @pytest.mark.parametrize(
        ("iteration", "folder"), [(10, "iter_0000010"), (20, "iter_0000020/dist_model"), (30, "global_step_30/actor")]
    )
    def test_iteration_chooses(self, tree, iteration, folder):
        root = tree("iter_0000010", "iter_0000020/dist_model", "global_step_30/actor", "other")
        assert locate(root, holds, iteration) == root / folder
        assert locate(root.parent, holds, iteration) == root / folder if holds(root) else True

    def test_an_iteration_that_is_not_there(self, tree):
        root = tree("iter_0000010", "iter_0000020")
        assert "no Megatron checkpoint of iteration 30 there" in refused(root, 30)
        assert "no Megatron checkpoint of iteration -1 there" in refused(root, -1)

    @pytest.mark.parametrize(
        ("folders", "asked", "there"),
        [
            (("iter_0000100", "iter_0000020", "release"), 30, "Iterations there: 20, 100."),
            (("global_step_3/actor", "global_step_20/actor"), 1, "Iterations there: 3, 20."),
            ((f"iter_{i:07d}" for i in range(23)), 99, "Iterations there: 3 earlier ones and 3, 4, 5, "),
        ],
    )
    def test_those_there_are_listed_instead(self, tree, folders, asked, there):
        assert fault_of(tree(*folders), asked).hint.startswith(there)

    @pytest.mark.parametrize("made", [True, False])
    def test_the_folder_of_one_that_is_not_there(self, tree, made):
        root = tree("iter_0000010", "iter_0000020")
        if made:
            (root / "iter_0000030").mkdir()
        assert fault_of(root / "iter_0000030").hint.endswith("Iterations there: 10, 20.")

    def test_none_of_that_number_and_none_of_another(self, tree):
        assert "Looked for .metadata" in fault_of(tree("other"), 5).hint

    def test_the_only_one_is_not_the_one_asked_for(self, tree):
        assert "of iteration 11" in refused(tree("iter_0000010"), 11)

    def test_one_iteration_in_two_places(self, tree):
        assert "holds several checkpoints" in refused(tree("a/iter_0000010", "b/iter_0000010"), 10)

    def test_the_directory_itself_is_another_iteration(self, tree):
        root = tree("iter_0000010/dist_model")
        assert locate(root / "iter_0000010/dist_model", holds, 10) == root / "iter_0000010/dist_model"
        assert "is not iteration 20" in refused(root / "iter_0000010/dist_model", 20)


class TestTracker:
    @pytest.mark.parametrize(
        ("word", "folder"),
        [
            ("20", "iter_0000020"),
            ("20\n", "iter_0000020"),
            ("release", "release"),
            (" release\n", "release"),
            ("30", "global_step_30"),
            ("40", "iter_0000040/dist_model"),
        ],
    )
    def test_names_one_of_several(self, tree, word, folder):
        root = tree(
            "iter_0000010", "iter_0000020", "release", "global_step_30", "iter_0000040/dist_model", tracker=word
        )
        assert locate(root, holds) == root / folder

    def test_iteration_wins(self, tree):
        root = tree("iter_0000010", "iter_0000020", tracker="20")
        assert locate(root, holds, 10) == root / "iter_0000010"

    def test_iteration_in_a_deeper_folder(self, tree):
        root = tree("run/iter_0000010", "run/iter_0000020", "iter_0000030", tracker="30")
        assert locate(root, holds, 20) == root / "run/iter_0000020"

    @pytest.mark.parametrize(
        "word",
        [
            "",
            "\n",
            "latest",
            "-1",
            "1.5",
            "../elsewhere",
            "1 2",
            "release2",
            "999999999999",
            b"\xff\xfe1",
            b"\0" * 64,
            "\u0663",
        ],
    )
    def test_garbage(self, tree, word):
        said = refused(tree("iter_0000010", "elsewhere", tracker=word))
        assert "holds neither a number nor 'release'" in said and TRACKER in said

    def test_only_its_beginning_is_read(self, tree):
        root = tree("iter_0000010", tracker=b"10" + b" " * (1 << 20) + b"20")
        assert locate(root, holds) == root / "iter_0000010"

    @pytest.mark.parametrize(("word", "folder"), [("20", "iter_0000020"), ("release", "release")])
    def test_what_it_names_is_missing(self, tree, word, folder):
        root = tree("iter_0000010", tracker=word)
        said = refused(root)
        assert f"{root / folder}: is missing, though {root / TRACKER} names it" in said
        assert fault_of(root).hint.endswith("pruned. Iterations there: 10.")

    def test_what_it_names_is_empty(self, tree):
        root = tree("iter_0000010", tracker="20")
        (root / "iter_0000020").mkdir()
        assert f"{root / 'iter_0000020'}: holds no checkpoint, though" in refused(root)
        assert "--iteration 20 asks for it" in refused(root, 20)

    def test_what_it_names_holds_two(self, tree):
        assert "holds several checkpoints" in refused(
            tree("iter_0000020/dist_model", "iter_0000020/dist_ckpt", tracker="20")
        )


class TestNothingThere:
    def test_no_such_path(self, tmp_path):
        assert refused(tmp_path / "gone") == f"{tmp_path / 'gone'}: does not exist"

    def test_a_file(self, tmp_path):
        (tmp_path / "file").touch()
        assert refused(tmp_path / "file") == f"{tmp_path / 'file'}: not a directory"

    def test_an_empty_directory(self, tmp_path):
        assert "no Megatron checkpoint there" in refused(tmp_path)


def test_digits_of_another_kind_are_no_iteration(tree):
    path = tree("iter_0000001/a", "iter_²/b", "x/iter_٣")
    assert locate(path / "x" / "iter_٣", holds, 3) == path / "x" / "iter_٣"
    assert "no Megatron checkpoint of iteration 7" in refused(path, 7)
