"""The heat map: which layer and module differ, by how much, and how that is drawn."""

from __future__ import annotations

import io
from dataclasses import replace
from math import nan
from pathlib import Path

import pytest
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import Difference, HeatMap, verify
from vlconv.converters.verification.heat import heat_map
from vlconv.heat import lines

LAYER = "model.language_model.layers.{}"


@pytest.mark.parametrize(
    ("name", "row", "column"),
    [
        (f"{LAYER.format(11)}.self_attn.q_proj.weight", "11", "q"),
        (f"{LAYER.format(0)}.self_attn.q_norm.weight", "0", "q/k"),
        (f"{LAYER.format(0)}.mlp.gate.weight", "0", "router"),
        (f"{LAYER.format(0)}.mlp.gate_proj.weight", "0", "gate"),
        (f"{LAYER.format(0)}.mlp.experts.gate_up_proj", "0", "experts"),
        ("model.layers.2.mlp.experts.7.up_proj.weight", "2", "experts"),
        ("model.layers.2.mlp.shared_expert.up_proj.weight", "2", "shared"),
        ("model.layers.2.mlp.shared_expert_gate.weight", "2", "shared"),
        ("model.layers.2.linear_attn.norm.weight", "2", "gdn"),
        ("model.layers.2.post_attention_layernorm.weight", "2", "norms"),
        ("model.visual.blocks.3.attn.qkv.bias", "vision 3", "qkv"),
        ("visual.blocks.3.attn.proj.weight", "vision 3", "o"),
        ("model.visual.blocks.3.norm1.weight", "vision 3", "norms"),
        ("model.visual.merger.linear_fc1.weight", "", "fc1"),
        ("model.visual.pos_embed.weight", "", "other"),
        ("mtp.layers.0.self_attn.q_proj.weight", "", "q"),
        ("model.language_model.embed_tokens.weight", "", "emb"),
        ("lm_head.weight", "", "head"),
    ],
)
def test_a_tensor_has_its_place(name: str, row: str, column: str) -> None:
    other = f"{LAYER.format(5)}.mlp.down_proj.weight"
    found = heat_map([name, other], [Difference(name, "values", 1, relative=0.5)])
    assert found
    assert found.cells[found.rows.index(row)][found.columns.index(column)] == 0.5
    assert found.cells[found.rows.index("5")][found.columns.index("down")] == 0.0
    assert sum(cell is not None for cells in found.cells for cell in cells) == 2


def test_rows_are_layers_then_blocks_then_the_others() -> None:
    names = ["lm_head.weight", *(f"model.visual.blocks.{i}.norm1.weight" for i in (10, 9))]
    names += [f"{LAYER.format(i)}.input_layernorm.weight" for i in (10, 2)]
    found = heat_map(names, [Difference(names[0], "values", 1, relative=1.0)])
    assert found and found.rows == ["2", "10", "vision 9", "vision 10", ""]


def test_the_largest_of_a_place_counts() -> None:
    names = [f"{LAYER.format(0)}.self_attn.q_proj.{kind}" for kind in ("weight", "bias")]
    found = heat_map(names, [Difference(n, "values", 1, relative=r) for n, r in zip(names, (0.3, 0.1), strict=True)])
    assert found and found.cells == [[0.3]]


@pytest.mark.parametrize(
    ("difference", "cell"),
    [
        (Difference("", "values", 1, max_abs=2.0, relative=0.0), nan),  # where the sample has no number
        (Difference("", "shape"), nan),
        (Difference("", "only in A"), nan),
        (Difference("", "dtype"), 0.0),  # of equal values
        (Difference("", "dtype", 3, relative=0.25), 0.25),
    ],
)
def test_what_differs_is_not_the_same(difference: Difference, cell: float) -> None:
    names = [f"{LAYER.format(i)}.self_attn.q_proj.{kind}" for i in (0, 1) for kind in ("weight", "bias")]
    measured = Difference(names[2], "values", 1, relative=0.5)
    found = heat_map(names, [replace(difference, tensor=names[0]), measured])
    assert found and found.cells == [[pytest.approx(cell, nan_ok=True)], [0.5]]
    beside = heat_map(names, [replace(difference, tensor=names[3]), measured])
    assert beside and beside.cells == [[0.0], [0.5]]


def test_equal_sides_have_none(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_tiny_hf(tmp_path / name, tiny_config("qwen3"))
    report = verify(tmp_path / "a", tmp_path / "b")
    assert report.heat_map is None and "heat_map" not in report.as_dict()


def test_what_training_changed_is_measured(tmp_path: Path) -> None:
    """Against norms that torch computes."""
    hf = write_tiny_hf(tmp_path / "base", tiny_config("qwen3"))
    tuned = {n: (t * 1.5 if ".layers.2.mlp.down" in n else t + 0.01 if "q_proj" in n else t) for n, t in hf.items()}
    write_tiny_hf(tmp_path / "tuned", tiny_config("qwen3"), tensors=tuned)
    found = verify(tmp_path / "base", tmp_path / "tuned").heat_map
    assert found
    for row in range(4):
        name = f"model.layers.{row}.self_attn.q_proj.weight"
        known = ((tuned[name].double() - hf[name].double()).norm() / hf[name].double().norm()).item()
        assert found.cells[row][found.columns.index("q")] == pytest.approx(known, rel=1e-6)
        down = found.cells[row][found.columns.index("down")]
        assert down == (pytest.approx(0.5, rel=0.01) if row == 2 else 0.0)


def drawn(heat: HeatMap, encoding: str = "utf-8", *, whole: bool = False) -> list[str]:
    return [line.plain for line in lines(heat, io.TextIOWrapper(io.BytesIO(), encoding), whole=whole)]


class TestDrawn:
    HEAT = HeatMap(["0", "1", ""], ["q", "down"], [[0.0, 2.0], [1e-4, 0.05], [None, 5e-3]])

    def test_a_row_for_each_layer(self) -> None:
        assert drawn(self.HEAT)[:4] == [
            "            q  down",
            "  layer 0  ··· ███",
            "  layer 1  ░░░ ▓▓▓",
            "  others       ▒▒▒",
        ]

    def test_a_file_without_such_characters_gets_others(self) -> None:
        assert drawn(self.HEAT, "ascii")[1] == "  layer 0  ... ###"

    def test_what_is_not_measured_has_a_mark_and_the_legend_says_so(self) -> None:
        unknown = drawn(HeatMap(["0", "1"], ["q"], [[nan], [0.0]]))
        assert unknown[1:3] == ["  layer 0  ???", "  layer 1  ···"] and "? differs, not measured" in unknown[3]
        assert "?" not in "".join(drawn(self.HEAT))

    def test_it_stands_before_the_same_and_behind_what_is(self) -> None:
        rows = [*map(str, range(96))]
        cells: list[list[float | None]] = [[0.0], [nan], [0.0], [nan], [0.2], [0.0]] + [[0.0]] * 90
        assert drawn(HeatMap(rows, ["q"], cells))[1:4] == [
            "  layer 0 to 2    ???",
            "  layer 3 to 5    ███",
            "  layer 6 to 8    ···",
        ]

    def test_many_layers_share_rows_unless_all_are_asked_for(self) -> None:
        rows = [*map(str, range(94)), *(f"vision {i}" for i in range(27)), ""]
        cells: list[list[float | None]] = [[0.0] for _ in rows]
        cells[93] = [1.0]
        heat = HeatMap(rows, ["q"], cells)
        some = drawn(heat)
        assert len(some) <= 36 and len(drawn(heat, whole=True)) == len(rows) + 2
        assert next(line for line in some if "█" in line).startswith("  layer 92 to 93")
        assert any(line.startswith("  vision 0 to 3") for line in some)
