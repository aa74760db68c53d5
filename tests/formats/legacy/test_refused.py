"""Legacy checkpoints that are incomplete, damaged or two in one: refused with what was expected, nothing written.

And ranks that disagree: told of, or refused with --strict.
"""

from __future__ import annotations

import argparse
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from mcore.tiny import tiny
from mcore.topology import Topology
from references import differing, read_hf, write_reference
from spoiled import MODEL, Saved

from vlconv.converters.errors import CorruptError, MismatchError, UnsupportedError


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("dense"), Topology(tp=2, pp=2), tied=True)


@pytest.fixture(scope="module")
def moe(tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return Saved(tmp_path_factory.mktemp("moe"), Topology(tp=2, ep=2, etp=1), moe=True)


class TestDirectories:
    @pytest.mark.parametrize("args", [True, False])
    def test_one_is_missing(self, tmp_path: Path, dense: Saved, args: bool) -> None:
        given = dense.given(tmp_path)
        shutil.rmtree(given.directory / "mp_rank_01_001")
        if not args:
            for folder in given.directory.iterdir():
                given.edit(folder.name, lambda state: state.pop("args"))
        given.refused(
            CorruptError, "fit no topology. For TP 2, PP 2, EP 1, ETP 2: missing: mp_rank_01_001", "incomplete"
        )

    def test_a_whole_stage_is_missing(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        for tp in range(2):
            shutil.rmtree(given.directory / f"mp_rank_0{tp}_001")
        given.refused(CorruptError, "missing: mp_rank_00_001, mp_rank_01_001")

    def test_one_too_many(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        shutil.copytree(given.directory / "mp_rank_01_001", given.directory / "mp_rank_02_001")
        given.refused(
            CorruptError, "For TP 2, PP 2, EP 1, ETP 2: not expected: mp_rank_02_001", "two lie in one directory"
        )

    def test_experts_on_ranks_that_no_topology_gives(self, tmp_path: Path, moe: Saved) -> None:
        given = moe.given(tmp_path)
        (given.directory / "mp_rank_01_001").rename(given.directory / "mp_rank_01_000")
        given.refused(
            CorruptError, "For TP 2, PP 1, EP 2, ETP 1: missing: mp_rank_01_001; not expected: mp_rank_01_000"
        )

    def test_more_expert_tensor_ranks_than_tensor_ranks(self, tmp_path: Path, moe: Saved) -> None:
        given = moe.given(tmp_path)
        for folder in given.directory.iterdir():
            given.edit(folder.name, lambda state: setattr(state["args"], "expert_tensor_parallel_size", 4))
        given.refused(
            UnsupportedError, "expert tensor parallel size 4 with tensor parallel size 2", "Only ETP = TP and ETP = 1"
        )

    @pytest.mark.parametrize(
        "name", ["mp_rank_0", "mp_rank_00_0", "mp_rank_00_000_000_000", "mp_rank_00_000.bak", "mp_rank_٠٠"]
    )
    def test_unknown_names(self, tmp_path: Path, dense: Saved, name: str) -> None:
        given = dense.given(tmp_path)
        shutil.copytree(given.directory / "mp_rank_00_000", given.directory / name)
        given.refused(CorruptError, f"{name}: not a rank directory's name", "mp_rank_TT_PPP_EEE")

    def test_names_of_another_form(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        shutil.copytree(given.directory / "mp_rank_00_000", given.directory / "mp_rank_00")
        given.refused(
            CorruptError,
            "rank directories of different forms: mp_rank_00, mp_rank_00_000, mp_rank_00_001,",
            "Two checkpoints",
        )

    def test_without_its_file(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        (given.directory / "mp_rank_01_000" / MODEL).rename(given.directory / "mp_rank_01_000" / "optimizer.pt")
        given.refused(CorruptError, "mp_rank_01_000: holds no model_optim_rng.pt")


class TestFiles:
    @pytest.mark.parametrize("kept", [0.0, 0.3, 0.999])
    def test_cut_short(self, tmp_path: Path, dense: Saved, kept: float) -> None:
        given = dense.given(tmp_path)
        file = given.directory / "mp_rank_01_000" / MODEL
        os.truncate(file, int(file.stat().st_size * kept))
        given.refused(CorruptError, "mp_rank_01_000/model_optim_rng.pt")

    def test_a_flipped_bit(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        file = given.directory / "mp_rank_01_000" / MODEL
        data, rows = (
            bytearray(file.read_bytes()),
            torch.load(file, weights_only=False)["model"]["language_model.embedding.word_embeddings.weight"],
        )
        at = data.index(rows[7].view(torch.uint8).numpy().tobytes())
        data[at] ^= 4
        file.write_bytes(data)
        given.refused(CorruptError, "mp_rank_01_000")

    def test_not_a_checkpoint(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_00_001", lambda state: state.pop("model"))
        given.refused(CorruptError, "mp_rank_00_001/model_optim_rng.pt: holds no model", "'model', or 'model0'")

    def test_nothing_in_a_file_is_run(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_00_000", lambda state: setattr(state["args"], "load", Bomb(tmp_path / "ran")))
        given.refused(
            CorruptError, "mp_rank_00_000/model_optim_rng.pt refers to posix.mkdir", "Nothing in the file was run"
        )
        assert not (tmp_path / "ran").exists()

    def test_a_layer_is_missing(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_01_001", lambda state: forget(state, ".layers.0."))
        given.refused(CorruptError, "language_model.decoder.layers lacks layers: it has [1]")

    def test_a_tensor_is_missing(self, tmp_path: Path, dense: Saved) -> None:
        """On one of two ranks: the other's part does not make a whole."""
        given = dense.given(tmp_path)
        given.edit("mp_rank_01_001", lambda state: forget(state, ".layers.1.mlp.linear_fc2.weight"))
        given.refused(CorruptError, "language_model.decoder.layers.3.mlp.linear_fc2.weight")

    def test_quantised(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        name = "language_model.decoder.layers.0.mlp.linear_fc2.weight"
        given.edit("mp_rank_00_000", lambda state: state["model"].update({name: state["model"][name].to(torch.int8)}))
        given.refused(UnsupportedError, name, "has dtype int8", "unquantised")


class Bomb:
    """An object whose pickle makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def forget(state: dict[str, Any], part: str) -> None:
    """Drop every tensor whose name has that part."""
    names = [name for name in state["model"] if part in name]
    assert names
    for name in names:
        del state["model"][name]


class TestTwoCheckpoints:
    def test_of_different_iterations(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_01_000", lambda state: state.update(iteration=7))
        given.refused(CorruptError, "different iterations: mp_rank_00_000 at 0, mp_rank_01_000 at 7", "Two checkpoints")

    def test_of_different_widths(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit(
            "mp_rank_01_000", lambda state: widen(state, "language_model.decoder.layers.0.mlp.linear_fc1.weight")
        )
        given.refused(
            CorruptError,
            "layers.0.mlp.linear_fc1.weight: ranks hold different shapes or dtypes: ",
            "[96, 64]",
            "[98, 64]",
            "Two checkpoints",
        )

    def test_of_different_depths(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_01_001", lambda state: forget(state, ".layers.1."))
        given.refused(
            CorruptError, "language_model.decoder.layers has 1 layers, other ranks of its stage 2", "Two checkpoints"
        )

    def test_with_and_without_a_virtual_pipeline(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_01_001", lambda state: state.update(model0=state.pop("model"), model1={}))
        given.refused(CorruptError, "different numbers of model chunks", "Two checkpoints")

    def test_for_a_reference_of_another_size(self, tmp_path: Path, dense: Saved) -> None:
        """Half as wide: not to be mistaken for a tensor that no rank cuts."""
        given = dense.given(tmp_path)
        for folder in given.directory.iterdir():
            given.edit(folder.name, lambda state: state.pop("args"))
        given.reference = write_reference(tmp_path / "half", tiny(tied=True, ffn=48))
        given.refused(MismatchError, "linear_fc1.weight", "text_config.intermediate_size")


def widen(state: dict[str, Any], name: str) -> None:
    tensor = state["model"][name]
    state["model"][name] = torch.cat([tensor, tensor[:2]])


class TestRanksThatDisagree:
    """Tensors that every rank has whole: the first is taken, and the rest told of."""

    NORM = "language_model.decoder.layers.1.self_attention.q_layernorm.weight"

    def nudged(self, state: dict[str, Any]) -> None:
        state["model"][self.NORM][3:5] += 0.5

    def test_are_told_of(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_01_001", self.nudged)
        report = given.convert()
        assert differing(read_hf(given.out), given.hf) == []
        name, ranks = self.NORM.replace(".1.", ".3."), "mp_rank_00_001 (taken) and mp_rank_01_001"
        says = f"{name} differs between {ranks}: 2 of 16 elements, by at most 0.5"
        assert report.warnings == [says]

    def test_strict_refuses(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.convert(strict=True)  # as long as they agree
        shutil.rmtree(given.out)
        given.edit("mp_rank_01_001", self.nudged)
        given.refused(
            MismatchError, "ranks disagree", "q_layernorm.weight differs between", "2 of 16 elements", strict=True
        )

    def test_in_a_mere_bit(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit(
            "mp_rank_01_000",
            lambda state: state["model"]["vision_model.pos_embed.weight"][2, 5:6].view(torch.int16).bitwise_xor_(1),
        )
        assert ["1 of 512 elements" in line for line in given.convert().warnings] == [True]

    def test_the_tied_copy_on_the_last_stage(self, tmp_path: Path, dense: Saved) -> None:
        given = dense.given(tmp_path)
        given.edit("mp_rank_01_001", lambda state: state["model"]["language_model.output_layer.weight"][5].zero_())
        given.refused(
            MismatchError,
            "the model is tied, but the output layer in mp_rank_01_001 is no copy of its embedding: 64 of 7936 "
            "elements, by at most ",
        )

    def test_expert_ranks(self, tmp_path: Path, moe: Saved) -> None:
        """Of what is no expert's, and of one rank's experts: only the former is there twice."""
        given = moe.given(tmp_path)
        router = "language_model.decoder.layers.0.mlp.router.weight"
        given.edit("mp_rank_01_001", lambda state: state["model"][router][0, 0].add_(1))
        assert [line.split(" differs")[0] for line in given.convert().warnings] == [router]

    def test_sums_are_compared_where_there_are_none(self, tmp_path: Path, dense: Saved) -> None:
        """Files saved without checksums: replicas are read."""
        given = dense.given(tmp_path)
        torch.serialization.set_crc32_options(False)
        try:
            for folder in sorted(given.directory.iterdir()):
                given.edit(folder.name, self.nudged if folder.name == "mp_rank_01_001" else lambda state: None)
        finally:
            torch.serialization.set_crc32_options(True)
        differs, unsummed = given.convert().warnings
        assert "q_layernorm.weight differs between mp_rank_00_001 (taken) and mp_rank_01_001" in differs
        assert "items state no checksum" in unsummed


def test_args_of_any_kind(tmp_path: Path, dense: Saved) -> None:
    """Sizes that are no numbers are read off the names."""
    given = dense.given(tmp_path)
    strange = argparse.Namespace(
        tensor_model_parallel_size="2", pipeline_model_parallel_size=None, expert_model_parallel_size=True, num_layers=4
    )
    for folder in given.directory.iterdir():
        given.edit(folder.name, lambda state: state.update(args=strange))
    given.convert()
    assert differing(read_hf(given.out), given.hf) == []
