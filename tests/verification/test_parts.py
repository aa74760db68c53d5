"""In which parts of a model two sides differ, under names of either side."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import write_tiny_hf

from vlconv.converters import Difference, Hf2McoreOptions, Report, hf2mcore
from vlconv.converters.checkpoint.mcore_side import open_mcore_side
from vlconv.converters.options import McoreSource
from vlconv.converters.verification.comparison.compare import Comparison
from vlconv.converters.verification.parts import describe_parts


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("model.visual.merger.norm.weight", "vision tower"),
        ("vision_model.merger.patch_norm.weight", "vision tower"),
        ("language_model.decoder.layers.0.mlp.linear_fc1.weight", "language model"),
        ("language_model.mtp.layers.0.hnorm.weight", "multi-token prediction"),
        ("mtp.norm.weight", "multi-token prediction"),
    ],
)
def test_a_name_is_of_its_part(tmp_path: Path, name: str, part: str) -> None:
    write_tiny_hf(tmp_path / "hf")
    hf2mcore(tmp_path / "hf", tmp_path / "run", Hf2McoreOptions())
    side, report = open_mcore_side(tmp_path / "run", McoreSource()), Report("verify", "different")
    describe_parts(report, Comparison([Difference(name, "values", 1, (0,), 0.5)], 1, 9, [name]), [side])
    assert report.told["where"] == f"{part}: 1 of 1 tensors differ, at most 0.5"
