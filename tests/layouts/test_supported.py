"""The table of layouts in docs/supported.md says of every layout and model what the code does."""

from __future__ import annotations

from pathlib import Path

from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS

PAGE = Path(__file__).parents[2] / "docs" / "supported.md"

COLUMNS = (
    ("qwen3_vl", "qwen3_vl_moe"),
    ("qwen2_5_vl",),
    ("qwen3_5", "qwen3_5_moe"),
    ("qwen3", "qwen3_moe", "qwen2"),
    ("qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"),
)
"""The models of each column between the trainers and the formats."""


def rows() -> dict[str, list[str]]:
    """Layout -> the cells behind its trainers."""
    lines = PAGE.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| layout | trainers |")) + 2
    found = {}
    for line in lines[first:]:
        if not line.startswith("|"):
            return found
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        found[cells[0].strip("`")] = cells[2:]
    return found


def test_every_cell() -> None:
    said = rows()
    assert set(said) == set(LAYOUTS)
    for name, layout in LAYOUTS.items():
        mark = "rw" if layout.writes else "r"
        served = [{kind in layout.models for kind in column} for column in COLUMNS]
        assert all(len(answers) == 1 for answers in served), f"{name}: models of one column differ"
        cells = [mark if answers == {True} else "" for answers in served]
        assert said[name] == [*cells, ", ".join(layout.writes)], name


def test_every_model_has_a_column() -> None:
    assert {kind for column in COLUMNS for kind in column} == set(MODELS)
