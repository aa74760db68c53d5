"""What rank files state of themselves: sizes, the rank that saved them, states of generators."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore import ranks as processes
from mcore.topology import Topology
from spoiled import Given, Saved

from vlconv.converters.errors import CorruptError, MismatchError
from vlconv.converters.formats.legacy.held.agreement import check_places
from vlconv.converters.formats.legacy.ranks import Rank
from vlconv.converters.formats.legacy.saved import Saved as RankFile
from vlconv.converters.tensors.sharding import Topology as Sizes

ORDERS = ("tp-cp-ep-dp-pp", "tp-cp-ep-pp-dp")
"""As Megatron-LM asks megatron-core for them: by default, and with --use-tp-pp-dp-mapping."""

# With two data-parallel ranks in a world of eight: the ranks of data-parallel rank 0, which save.
BY_DEFAULT = {"mp_rank_00_000": 0, "mp_rank_01_000": 1, "mp_rank_00_001": 4, "mp_rank_01_001": 5}
PIPELINE_FIRST = {"mp_rank_00_000": 0, "mp_rank_01_000": 1, "mp_rank_00_001": 2, "mp_rank_01_001": 3}


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("dense"), Topology(tp=2, pp=2))


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("moe"), Topology(ep=2), moe=True)


def state_ranks(given: Given, ranks: dict[str, Any], **args: Any) -> None:
    """Let each file's args state a rank, and all of them the rest."""
    for folder, rank in ranks.items():
        given.edit(folder, lambda state, rank=rank: vars(state["args"]).update(args, rank=rank))


class TestSizes:
    @pytest.mark.parametrize(
        ("name", "value", "says"),
        [
            (
                "tensor_model_parallel_size",
                4,
                "tensor_model_parallel_size 2, mp_rank_01_001 tensor_model_parallel_size 4",
            ),
            ("pipeline_model_parallel_size", 1, "mp_rank_01_001 pipeline_model_parallel_size 1"),
            ("expert_tensor_parallel_size", 1, "mp_rank_01_001 expert_tensor_parallel_size 1"),
            ("virtual_pipeline_model_parallel_size", 2, "mp_rank_01_001 virtual_pipeline_model_parallel_size 2"),
            ("world_size", 64, "mp_rank_00_000 world_size 4, mp_rank_01_001 world_size 64"),
        ],
    )
    def test_of_another_run(self, tmp_path: Path, dense: Saved, name: str, value: int, says: str) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_01_001", lambda state: setattr(state["args"], name, value))
        given.refused(CorruptError, "release: ranks state different sizes: mp_rank_00_000 ", says, "Two checkpoints")

    def test_args_in_some_files_only(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        for folder in ("mp_rank_00_000", "mp_rank_01_001"):
            given.edit(folder, lambda state: state.pop("args"))
        assert given.comes_back().data["agrees_with"] == ["the checkpoint's args"]


class TestRanks:
    @pytest.mark.parametrize(
        ("ranks", "args"),
        [
            (BY_DEFAULT, {"world_size": 8}),
            (PIPELINE_FIRST, {"world_size": 8}),
            (PIPELINE_FIRST, {"world_size": 4}),
            (BY_DEFAULT, {"world_size": None}),
            (dict.fromkeys(BY_DEFAULT, 0), {"world_size": 8}),  # a converter
            (dict.fromkeys(BY_DEFAULT, 3), {"world_size": 8}),
            ({**BY_DEFAULT, "mp_rank_01_001": None}, {"world_size": 8}),
            ({**BY_DEFAULT, "mp_rank_01_001": "5"}, {"world_size": 8}),
            # A converter of two processes, one for each stage.
            ({folder: int(folder[-1]) for folder in BY_DEFAULT}, {"world_size": 2}),
            (
                {folder: rank + 2 * (rank > 1) for folder, rank in PIPELINE_FIRST.items()},
                {"world_size": 16, "context_parallel_size": 2},
            ),
            # Stages of an encoder of its own come before those of the decoder.
            ({folder: rank + 1 for folder, rank in BY_DEFAULT.items()}, {"encoder_pipeline_model_parallel_size": 1}),
        ],
        ids=str,
    )
    def test_fine(self, tmp_path: Path, dense: Saved, ranks: dict[str, Any], args: dict[str, Any]) -> None:
        given = dense.given(tmp_path)
        state_ranks(given, ranks, **args)
        given.comes_back()

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"mp_rank_01_000": 0}, "release: mp_rank_00_000 and mp_rank_01_000 both state rank 0"),
            (
                {"mp_rank_00_001": 5, "mp_rank_01_001": 4},
                "mp_rank_00_001: its args state rank 5, whose folder this is not",
            ),
            ({"mp_rank_00_001": 2}, "mp_rank_00_001: its args state rank 2"),
            ({"mp_rank_00_001": 8}, "mp_rank_00_001: its args state rank 8"),  # there is none
            ({"mp_rank_00_001": -4}, "mp_rank_00_001: its args state rank -4"),
            ({"mp_rank_00_000": 4, "mp_rank_00_001": 0}, "mp_rank_00_000: its args state rank 4"),
        ],
        ids=str,
    )
    def test_of_another_place(self, tmp_path: Path, dense: Saved, change: dict[str, int], says: str) -> None:
        given = dense.given(tmp_path)
        state_ranks(given, {**BY_DEFAULT, **change}, world_size=8)
        given.refused(CorruptError, says, "another rank's file")

    def test_without_a_world_the_tensor_rank_is_held(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        state_ranks(given, {**BY_DEFAULT, "mp_rank_00_001": 5, "mp_rank_01_001": 4}, world_size=None)
        given.refused(CorruptError, "mp_rank_00_001: its args state rank 5")

    @pytest.mark.parametrize("order", ORDERS)
    @pytest.mark.parametrize(
        "sizes",
        [
            {"tp": 2, "cp": 1, "dp": 3, "pp": 2},
            {"tp": 2, "cp": 2, "dp": 2, "pp": 3},
            {"tp": 1, "cp": 3, "dp": 1, "pp": 4},
        ],
    )
    def test_as_megatron_core_numbers_them(self, tmp_path: Path, order: str, sizes: dict[str, int]) -> None:
        """Whichever data-parallel rank saved: what megatron-core numbers is taken, any two of other places exchanged
        are not.
        """
        (numbered,) = processes.run(1, "mcore.orders:places", order, sizes)
        last = {place: rank for rank, place in sorted(numbered.items())}
        by_place = {place: rank for rank, place in sorted(numbered.items(), reverse=True)}
        check(tmp_path, last, **sizes)
        check(tmp_path, by_place, **sizes)
        first, *others = by_place
        for other in others:
            swapped = {**by_place, first: by_place[other], other: by_place[first]}
            with pytest.raises(CorruptError):
                check(tmp_path, swapped, **sizes)


def check(directory: Path, ranks: dict[tuple[int, int], int], tp: int, cp: int, dp: int, pp: int) -> None:
    """check_places of files that state these ranks and nothing else but sizes."""
    files = {}
    for (tensor, stage), rank in sorted(ranks.items()):
        args = {"rank": rank, "world_size": tp * cp * dp * pp, "context_parallel_size": cp}
        path = str(directory / f"mp_rank_{tensor:02d}_{stage:03d}" / "model_optim_rng.pt")
        files[Rank(tensor, stage, 0)] = RankFile(path, [], args, 1, [], 0)
    check_places(directory, files, Sizes(tp=tp, pp=pp))


class TestGenerators:
    SAYS = "hold the same state of model-parallel-rng, which Megatron seeds for each"

    def seed(self, given: Given, seeds: dict[str, int | None]) -> None:
        """As Megatron-LM's save_checkpoint leaves them."""
        for folder, seed in seeds.items():
            trackers = (
                {} if seed is None else {"model-parallel-rng": self.state(seed), "data-parallel-rng": self.state(1)}
            )
            given.edit(folder, lambda state, t=trackers: state.update(rng_state=[{"rng_tracker_states": t}]))

    def state(self, seed: int) -> torch.Tensor:
        return torch.tensor([*seed.to_bytes(8, "little"), *bytes(8)], dtype=torch.uint8)

    def test_all_different(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        self.seed(given, {folder: 2718 + at for at, folder in enumerate(given.folders)})
        assert given.comes_back(strict=True).warnings == []

    def test_two_alike(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        self.seed(given, {folder: max(2719, 2718 + at) for at, folder in enumerate(given.folders)})
        (warning,) = given.comes_back().warnings
        assert warning.startswith(f"mp_rank_00_000 and mp_rank_00_001 {self.SAYS}")

    def test_strict(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        self.seed(given, dict.fromkeys(given.folders, 2718))
        given.refused(MismatchError, self.SAYS, strict=True)

    def test_not_in_every_file(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        self.seed(given, {**dict.fromkeys(given.folders, 2718), given.folders[-1]: None})
        assert given.comes_back().warnings == []

    def test_of_expert_ranks(self, tmp_path: Path, moe: Saved) -> None:
        """They are of one tensor and pipeline rank, and seeded alike."""
        given = moe.given(tmp_path)
        self.seed(given, dict.fromkeys(given.folders, 2718))
        assert given.comes_back().warnings == []

    @pytest.mark.parametrize(
        "garbage",
        [None, [], [None], 5, [{"rng_tracker_states": [1]}], [{"rng_tracker_states": {"model-parallel-rng": b""}}]],
    )
    def test_of_no_meaning(self, tmp_path: Path, dense: Saved, garbage: Any) -> None:
        given = dense.given(tmp_path)
        given.edit_all(lambda state: state.update(rng_state=garbage))
        assert given.comes_back().warnings == []


def test_args_that_are_no_namespace(tmp_path: Path, dense: Saved) -> None:
    given = dense.given(tmp_path)
    given.edit_all(lambda state: state.update(args=Namespace(rank=[0], world_size="8")))
    given.comes_back()
