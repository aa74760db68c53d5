"""The form of experts that is written, and the warning that goes with the one that transformers cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_config, write_tiny_hf

from vlconv.converters import Mcore2HfOptions, hf2mcore, mcore2hf


@pytest.mark.parametrize(
    ("model", "form", "warned"),
    [("qwen3_vl_moe", "per-expert", True), ("qwen3_vl_moe", "hub", False), ("qwen3_vl", "per-expert", False)],
)
def test_experts_one_by_one_are_warned_of(tmp_path: Path, model: str, form: str, warned: bool) -> None:
    write_tiny_hf(tmp_path / "hf", tiny_config(model))
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    report = mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(experts=form, dry_run=True))  # type: ignore[arg-type]
    said = [warning for warning in report.warnings if "transformers" in warning]
    assert bool(said) == warned
    assert all("vLLM and SGLang read this form" in warning for warning in said)
