"""Legacy rank files under every trainer's names, and MindSpeed-MM's ways of spreading a model:
each Hugging Face tensor comes back bit for bit.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from references import differing, read_hf
from tiny import tiny_config, write_tiny_hf
from trainers.places import TRAINERS, namespace
from trainers.ranks import Grid, write_ranks

from vlconv.converters import Mcore2HfOptions, Report, mcore2hf
from vlconv.converters.errors import MismatchError, VlconvError
from vlconv.converters.models import MODELS

SAMPLED = 2

MEGATRON = {name: trainer.kinds for name, trainer in TRAINERS.items() if not name.startswith("hf")}
PAIRS = [(name, kind) for name, kinds in MEGATRON.items() for kind in kinds]
MOE = [(name, kind) for name, kind in PAIRS if MODELS[kind].traits.experts]
DENSE = [pair for pair in PAIRS if pair not in MOE]


def first_of_each(pairs: list[tuple[str, str]]) -> list[Any]:
    """Every layout with one of its models in `make test`, the others with the slow tests."""
    seen: set[str] = set()
    return [p if p[0] not in seen and not seen.add(p[0]) else pytest.param(*p, marks=pytest.mark.slow) for p in pairs]


class Model:
    """A tiny Hugging Face model."""

    def __init__(self, directory: Path, kind: str, **changes: Any) -> None:
        self.directory, self.config = directory, tiny_config(kind, **changes)
        self.tensors = write_tiny_hf(directory, self.config, delta_dtype="bfloat16")

    def comes_back(self, work: Path, name: str, grid: Grid, **how: Any) -> Report:
        """Save as that trainer does, convert, compare every tensor."""
        report = self.convert(work, name, grid, **how)
        assert differing(read_hf(work / "hf"), self.tensors) == []
        assert (report.data["layout"], report.data["format"], report.warnings) == (name, "torch", [])
        tp, chunks, ep = (
            max(grid.tp, grid.vision_tp),
            len(grid.text),
            f"{grid.ep}, ETP {grid.tp}" if grid.ep > 1 else "1",
        )
        assert report.data["form"] == f"TP {tp}, PP {grid.stages}, VPP {chunks}, EP {ep}"
        return report

    def convert(self, work: Path, name: str, grid: Grid, **how: Any) -> Report:
        source = write_ranks(work / "saved", name, self.config, self.tensors, grid, **how)
        return mcore2hf(source, work / "hf", Mcore2HfOptions(reference=str(self.directory), carry=self.tower(name)))

    def tower(self, name: str) -> tuple[str, ...]:
        """What has to come from the reference: the tower of a language model that is saved alone."""
        return (MODELS[self.config["model_type"]].vision_prefix,) if name == "language-model" else ()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    return {kind: Model(tmp_path_factory.mktemp(kind), kind) for kind in MODELS}


@pytest.mark.parametrize(("name", "kind"), first_of_each(DENSE))
def test_tensor_and_pipeline_ranks(tmp_path: Path, models: dict[str, Model], name: str, kind: str) -> None:
    models[kind].comes_back(tmp_path, name, Grid([[1, 3]], tp=2))


@pytest.mark.parametrize(("name", "kind"), first_of_each(MOE))
def test_expert_ranks(tmp_path: Path, models: dict[str, Model], name: str, kind: str) -> None:
    models[kind].comes_back(tmp_path, name, Grid([[4]], tp=2, ep=2), grouped=not name.startswith("mindspeed"))


@pytest.mark.parametrize("name", ["pai", "roll", "mindspeed-mm-canonical"])
def test_a_tied_model_in_a_pipeline(tmp_path: Path, name: str) -> None:
    model = Model(tmp_path / "original", TRAINERS[name].kinds[0], tied=True)
    report = model.comes_back(tmp_path, name, Grid([[2, 1], [1, 0]], tp=4))
    assert report.data["tied"] is True


def test_args_of_the_trainer(tmp_path: Path, models: dict[str, Model]) -> None:
    config = models["qwen3_vl_moe"].config
    sizes = {
        "tensor_model_parallel_size": 2,
        "pipeline_model_parallel_size": 2,
        "expert_model_parallel_size": 2,
        "expert_tensor_parallel_size": 2,
    }
    report = models["qwen3_vl_moe"].comes_back(
        tmp_path, "pai", Grid([[2, 2]], tp=2, ep=2), grouped=True, common=namespace(config, **sizes)
    )
    assert report.data["agrees_with"] == ["the checkpoint's args"]


def test_roll_leaves_its_config_beside(tmp_path: Path, models: dict[str, Model]) -> None:
    report = models["qwen3_vl"].comes_back(tmp_path, "roll", Grid([[4]], tp=2))
    assert report.data["agrees_with"] == ["mca_config.json"]


GRIDS = {
    "vision over all stages, the second deepstack block local 1": Grid([[1, 3]], [[1, 3]], tp=2),
    "vision on the first two of three": Grid([[1, 1, 2]], [[3, 1, 0]]),
    "vision first, then the language model": Grid([[0, 2, 2]], [[4, 0, 0]]),
    "model chunks": Grid([[1, 1], [1, 1]], [[2, 1], [1, 0]]),
    "a whole tower on every stage": Grid([[2, 2]], [[4]], tp=2),
    "vision not cut": Grid([[4]], tp=2, vision_tp=1),
    "vision cut in two, the rest in four": Grid([[2, 2]], tp=4, vision_tp=2),
    "both apart": Grid([[3, 1]], [[2, 2]], tp=4, vision_tp=1),
}


class TestMindSpeed:
    """Its converter spreads the vision tower over the stages as it does the language model, and numbers layers,
    deepstack's too, within a stage.
    """

    @pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
    def test_qwen3(self, tmp_path: Path, models: dict[str, Model], grid: Grid) -> None:
        models["qwen3_vl"].comes_back(tmp_path, "mindspeed-mm", grid)

    @pytest.mark.parametrize("blocks", [[2, 0], [3, 1, 2]], ids=str)
    def test_deepstack_blocks_in_any_order(self, tmp_path: Path, blocks: list[int]) -> None:
        """Its converter puts the n-th merger into the n-th block that the config lists, and
        transformers looks there.
        """
        model = Model(tmp_path / "original", "qwen3_vl", vision={"deepstack_visual_indexes": blocks})
        model.comes_back(tmp_path, "mindspeed-mm", Grid([[1, 3]], tp=2))

    @pytest.mark.parametrize("name", ["mindspeed-mm", "mindspeed-mm-canonical"])
    def test_qwen2_5(self, tmp_path: Path, models: dict[str, Model], name: str) -> None:
        models["qwen2_5_vl"].comes_back(tmp_path, name, Grid([[1, 3]], [[2, 2]], tp=4, vision_tp=2))

    def test_tied(self, tmp_path: Path) -> None:
        model = Model(tmp_path / "original", "qwen3_vl", tied=True)
        model.comes_back(tmp_path, "mindspeed-mm", Grid([[1, 3]], [[3, 1]], tp=2, vision_tp=1))

    @pytest.mark.parametrize(
        "grid", [Grid([[4]], ep=2), Grid([[1, 3]], [[3, 1]], ep=2, tp=2), Grid([[4]], ep=4, tp=2, vision_tp=1)]
    )
    def test_experts_as_transposed_views(self, tmp_path: Path, models: dict[str, Model], grid: Grid) -> None:
        models["qwen3_vl_moe"].comes_back(tmp_path, "mindspeed-mm", grid, views=True)
        states = [torch.load(file, weights_only=True)["model"] for file in (tmp_path / "saved").glob("release/*/*.pt")]
        experts = [
            t for state in states for name, t in state.items() if name.endswith(".local_experts.0.linear_fc2.weight")
        ]
        assert [t for t in experts if t.is_contiguous()] == []  # strides survived torch.save
        assert any(t.storage_offset() for t in experts) is (grid.tp == 1)

    def test_a_vision_tower_cut_more_often_is_refused(self, tmp_path: Path, models: dict[str, Model]) -> None:
        with pytest.raises(VlconvError) as caught:
            models["qwen3_vl"].convert(tmp_path, "mindspeed-mm", Grid([[4]], tp=1, vision_tp=2))
        assert "embedding" in str(caught.value) or "rows" in str(caught.value), str(caught.value)
        assert not (tmp_path / "hf").exists()

    def test_a_reference_with_half_the_vision_ffn_is_refused(self, tmp_path: Path, models: dict[str, Model]) -> None:
        """It would fit tensors that are not cut; linear_proj shows that they are."""
        other = Model(tmp_path / "other", "qwen3_vl", vision={"intermediate_size": 24})
        source = write_ranks(
            tmp_path / "saved", "mindspeed-mm", models["qwen3_vl"].config, models["qwen3_vl"].tensors, Grid([[4]], tp=2)
        )
        with pytest.raises(MismatchError, match=r"vision_config\.intermediate_size"):
            mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=str(other.directory)))

    def test_repeated_shards_that_differ_are_told_of(self, tmp_path: Path, models: dict[str, Model]) -> None:
        source = write_ranks(
            tmp_path / "saved",
            "mindspeed-mm",
            models["qwen3_vl"].config,
            models["qwen3_vl"].tensors,
            Grid([[4]], tp=4, vision_tp=2),
        )
        file = source / "release" / "mp_rank_03" / "model_optim_rng.pt"
        state = torch.load(file, weights_only=True)
        name = "image_encoder.encoder.blocks.layers.2.mlp.linear_fc1.weight"
        state["model"][name][0, 0] += 1
        torch.save(state, file)
        report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=str(models["qwen3_vl"].directory)))
        assert [line.split(", by")[0] for line in report.warnings] == [
            f"{name} differs between mp_rank_01 (taken) and mp_rank_03: 1 of 768 elements"
        ]

    def test_repeated_towers_that_differ_are_told_of(self, tmp_path: Path, models: dict[str, Model]) -> None:
        """Every stage has the whole tower; the first one's is taken."""
        model = models["qwen3_vl"]
        grid = Grid([[2, 2]], [[4]])
        source = write_ranks(tmp_path / "saved", "mindspeed-mm", model.config, model.tensors, grid)
        file = source / "release" / "mp_rank_00_001" / "model_optim_rng.pt"
        state = torch.load(file, weights_only=True)
        name = "image_encoder.encoder.blocks.layers.2.mlp.linear_fc1.weight"
        state["model"][name][0, 0] += 1
        torch.save(state, file)
        report = mcore2hf(source, tmp_path / "hf", Mcore2HfOptions(reference=str(model.directory)))
        assert [line.split(", by")[0] for line in report.warnings] == [
            f"{name} differs between mp_rank_00_000 (taken) and mp_rank_00_001: 1 of 1536 elements"
        ]
        assert differing(read_hf(tmp_path / "hf"), model.tensors) == []
