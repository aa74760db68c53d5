"""What one rank wrote that had another iteration than the others: its block, its experts, its layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from memory import Memory
from tiny import tiny_config, tiny_shapes, tiny_weights
from torch import Tensor

from vlconv.converters.models import model_for
from vlconv.converters.report import Difference, Silent
from vlconv.converters.verification.comparison.compare import compare
from vlconv.converters.verification.diagnosis.diagnose import diagnosed
from vlconv.converters.verification.diagnosis.diagnosis import Diagnosis

TRAINED = "all numbers are a little off, as training leaves them"
BLOCK = "one block of rows, columns or experts is other numbers"
OLD = "as if of another iteration"

Weights = dict[str, Tensor]


def newer(tensor: Tensor) -> Tensor:
    """The same tensor some steps later."""
    noise = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(5))
    return (tensor.float() + 0.02 * tensor.float().std() * noise).to(tensor.dtype)


def found(model: str, change: Callable[[Weights], Weights], **text: int) -> tuple[list[Diagnosis], list[Difference]]:
    config = tiny_config(model, text=dict(text) or None)
    hf = tiny_weights(tiny_shapes(config))
    a, b = Memory(hf), Memory(hf | change(hf))
    differences = compare(a, b, 1, Silent()).differences
    return diagnosed(a, b, model_for(config).config(config), differences), differences


def rank_of(tensor: Tensor, rank: int, ranks: int, axis: int, sections: int = 1) -> Tensor:
    """One rank's part is newer, of each section of the axis."""
    out = []
    for section in tensor.chunk(sections, axis):
        parts = list(section.chunk(ranks, axis))
        parts[rank] = newer(parts[rank])
        out += parts
    return torch.cat(out, axis)


def ending(hf: Weights, end: str) -> list[str]:
    return [name for name in hf if name.endswith(end)]


class TestPartOfATensor:
    @pytest.mark.parametrize(
        ("model", "end", "cut", "which", "rank"),
        [
            (
                "qwen3_vl",
                "q_proj.weight",
                (1, 2, 0),
                "rows 64 to 127 of 128 alone differ",
                "tensor-parallel rank 1 of 2",
            ),
            (
                "qwen3_vl",
                "o_proj.weight",
                (3, 4, 1),
                "columns 96 to 127 of 128 alone differ",
                "tensor-parallel rank 3 of 4",
            ),
            (
                "qwen3_vl_moe",
                "experts.gate_up_proj",
                (1, 2, 0),
                "experts 2 to 3 of 4 alone differ",
                "expert-parallel rank 1 of 2",
            ),
            (
                "qwen3_vl_moe",
                "experts.gate_up_proj",
                (2, 4, 0),
                "expert 2 of 4 alone differs",
                "expert-parallel rank 2 of 4",
            ),
            (
                "qwen3_vl_moe",
                "experts.down_proj",
                (0, 2, 1),
                "rows 0 to 11 of 24 alone differ",
                "tensor-parallel rank 0 of 2",
            ),
            (
                "qwen3_vl_moe",
                "experts.gate_up_proj",
                (1, 2, 2, 2),
                "columns 12 to 23 of 24 in each of 2 equal parts alone differ",
                "tensor-parallel rank 1 of 2",
            ),
            (
                "qwen3_5_moe",
                "experts.gate_up_proj",
                (0, 2, 1, 2),
                "rows 0 to 11 of 24 in each of 2 equal parts alone differ",
                "tensor-parallel rank 0 of 2",
            ),
            (
                "qwen3_vl",
                "attn.qkv.weight",
                (1, 2, 0, 3),
                "rows 16 to 31 of 32 in each of 3 equal parts alone differ",
                "tensor-parallel rank 1 of 2",
            ),
        ],
    )
    def test_it_is_named(self, model: str, end: str, cut: tuple[int, ...], which: str, rank: str) -> None:
        diagnoses, differences = found(model, lambda hf: {n: rank_of(hf[n], *cut) for n in ending(hf, end)})
        part = f"the part of {rank}, {OLD}"
        assert [(one.name, one.says) for one in diagnoses] == [("block", f"{BLOCK}, {part}")]
        assert {d.note for d in differences} == {f"{which}, {part}"}

    def test_a_block_that_is_no_rank_s(self) -> None:
        def change(hf: Weights) -> Weights:
            (name, *_) = ending(hf, "q_proj.weight")
            out = hf[name].clone()
            out[30:70] = newer(out[30:70])
            return {name: out}

        (one,), (difference,) = found("qwen3_vl", change)
        assert (one.says, difference.note) == (BLOCK, "rows 30 to 69 of 128 alone differ")

    def test_a_part_of_a_rank_s_part_is_not_called_the_rank_s(self) -> None:
        def change(hf: Weights) -> Weights:
            (name, *_) = ending(hf, "q_proj.weight")
            out = hf[name].clone()
            out[64:104] = newer(out[64:104])
            return {name: out}

        (one,), (difference,) = found("qwen3_vl", change)
        assert (one.says, difference.note) == (BLOCK, "rows 64 to 103 of 128 alone differ")

    def test_ranks_of_two_kinds_are_two_explanations(self) -> None:
        def change(hf: Weights) -> Weights:
            q, down = ending(hf, "1.self_attn.q_proj.weight"), ending(hf, "experts.down_proj")
            return {n: rank_of(hf[n], 0, 2, 0) for n in q} | {n: rank_of(hf[n], 1, 2, 0) for n in down}

        diagnoses, _ = found("qwen3_vl_moe", change)
        said = {one.says for one in diagnoses}
        assert said == {
            f"{BLOCK}, the part of {rank}, {OLD}"
            for rank in ("tensor-parallel rank 0 of 2", "expert-parallel rank 1 of 2")
        }


LAYER = "model.language_model.layers.{}."


def of_layers(*numbers: int, others: tuple[str, ...] = ()) -> Callable[[Weights], Weights]:
    begin = tuple(LAYER.format(i) for i in numbers) + others
    return lambda hf: {n: newer(t) for n, t in hf.items() if n.startswith(begin) and t.ndim > 1}


class TestLayers:
    @pytest.mark.parametrize(
        ("numbers", "others", "which", "rank"),
        [
            ((2, 3), (), "layers 2 to 3 of 4", "pipeline rank 1 of 2"),
            ((2, 3), ("lm_head.", "model.language_model.norm."), "layers 2 to 3 of 4", "pipeline rank 1 of 2"),
            ((0, 1), ("model.visual.", "model.language_model.embed"), "layers 0 to 1 of 4", "pipeline rank 0 of 2"),
            ((1,), (), "layer 1 of 4", "pipeline rank 1 of 4"),
        ],
    )
    def test_of_one_pipeline_rank(
        self, numbers: tuple[int, ...], others: tuple[str, ...], which: str, rank: str
    ) -> None:
        diagnoses, differences = found("qwen3_vl", of_layers(*numbers, others=others))
        part = f"{which} alone, the part of {rank}, {OLD}"
        assert [(one.name, one.says) for one in diagnoses] == [("rank", f"{TRAINED}: {part}")]
        assert len(diagnoses[0].tensors) == len(differences) and diagnoses[0].relative

    @pytest.mark.parametrize(
        ("numbers", "others"),
        [
            ((0, 1, 2, 3), ()),  # all
            ((1, 2), ()),  # of two ranks
            ((0, 2), ()),
            ((0, 1, 2), ()),
            ((0, 1), ("lm_head.",)),  # which the last one has
            ((2, 3), ("model.visual.",)),  # which the first one has
            ((), ("lm_head.",)),
        ],
    )
    def test_what_is_no_pipeline_rank_s_is_not_called_one_s(
        self, numbers: tuple[int, ...], others: tuple[str, ...]
    ) -> None:
        assert [one.says for one in found("qwen3_vl", of_layers(*numbers, others=others))[0]] == [TRAINED]

    def test_a_few_numbers_are_told_apart_and_among_other_layers_they_are_not_alone(self) -> None:
        def change(layer: int) -> Callable[[Weights], Weights]:
            def changed(hf: Weights) -> Weights:
                name = LAYER.format(layer) + "mlp.down_proj.weight"
                few = hf[name].clone()
                few[3, 3] += 1
                return of_layers(2, 3)(hf) | {name: few}

            return changed

        few = "a few numbers are others"
        part = f"layers 2 to 3 of 4 alone, the part of pipeline rank 1 of 2, {OLD}"
        assert {one.says for one in found("qwen3_vl", change(3))[0]} == {f"{TRAINED}: {part}", few}
        assert {one.says for one in found("qwen3_vl", change(1))[0]} == {TRAINED, few}

    def test_noise_is_of_no_other_iteration(self) -> None:
        def noise(tensor: Tensor) -> Tensor:
            made = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(3))
            return (made * tensor.float().std()).to(tensor.dtype)

        change = lambda hf: {name: noise(hf[name]) for name in of_layers(2, 3)(hf)}  # noqa: E731
        (one,) = found("qwen3_vl", change)[0]
        assert one.says.endswith("noise, or another tensor: layers 2 to 3 of 4 alone, the part of pipeline rank 1 of 2")

    def test_nor_is_one_matrix_of_a_layer(self) -> None:
        change = lambda hf: {n: newer(hf[n]) for n in ending(hf, "layers.1.mlp.down_proj.weight")}  # noqa: E731
        assert [one.says for one in found("qwen3_vl", change)[0]] == [TRAINED]


class TestExpertsOneByOne:
    @staticmethod
    def of(*numbers: int, layers: tuple[int, ...] = (0, 1, 2, 3)) -> Callable[[Weights], Weights]:
        among = tuple(f"model.layers.{layer}.mlp.experts.{i}." for layer in layers for i in numbers)
        return lambda hf: {n: newer(t) for n, t in hf.items() if n.startswith(among)}

    def test_of_one_expert_parallel_rank(self) -> None:
        (one,), _ = found("qwen3_moe", self.of(2, 3), num_experts=4)
        assert one.says == f"{TRAINED}: experts 2 to 3 of 4 alone, the part of expert-parallel rank 1 of 2, {OLD}"

    def test_what_is_no_rank_s_is_not_called_one_s(self) -> None:
        for numbers in ((0, 1, 2, 3), (1, 2), (0, 2)):
            assert [one.says for one in found("qwen3_moe", self.of(*numbers), num_experts=4)[0]] == [TRAINED]

    def test_nor_are_other_ones_in_another_layer(self) -> None:
        def change(hf: Weights) -> Weights:
            return self.of(2, 3, layers=(0, 1))(hf) | self.of(0, 1, layers=(2, 3))(hf)

        assert [one.says for one in found("qwen3_moe", change, num_experts=4)[0]] == [TRAINED]
