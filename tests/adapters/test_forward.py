"""verify --forward of an adapter with --base: what it stands for is run, not its base."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from forward import here, known, straight
from lora import names
from lora.making import Made, make
from lora.saved import base, written

from vlconv.converters import Hf2McoreOptions, Report, hf2mcore, mcore2hf, verify

__all__ = ["here"]

pytestmark = [pytest.mark.usefixtures("here"), pytest.mark.slow]


@pytest.fixture(scope="module")
def made() -> Made:
    known("qwen3_vl_moe")
    return make("qwen3_vl_moe", "mbridge")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, made: Made) -> dict[str, Path]:
    """An adapter in two forms, its base in two forms, and what they merge to."""
    root = tmp_path_factory.mktemp("adapter")
    adapter = written(root / "adapter", made, names.bridge(made), dim=4, alpha=64)
    model = base(root / "base", made)
    mcore2hf(adapter, root / "out", base=model)
    mcore2hf(adapter, root / "peft", adapter=True, base=model)
    hf2mcore(model, root / "mcore", Hf2McoreOptions())
    return {name: root / name for name in ("adapter", "peft", "base", "mcore", "out")}


def verdicts(report: Report) -> set[str]:
    return {found["verdict"] for found in report.data["forward"]["parts"].values()}


@pytest.mark.parametrize("kind", ["base", "mcore"])
@pytest.mark.parametrize("form", ["adapter", "peft"])
def test_it_computes_what_the_merged_model_does(places: dict[str, Path], form: str, kind: str) -> None:
    report = verify(places[form], places["out"], base=places[kind], forward=True)
    assert report.status == "same" and verdicts(report) == {"equal"}
    copied = report.data["forward"]["copied"]
    assert copied["A"] > 0 == copied["B"]
    assert ("adapter" in report.data["forward"]["megatron_core"].get("A", {}).get("not_run", "")) == (kind == "mcore")


def test_and_not_what_its_base_does(places: dict[str, Path], tmp_path: Path) -> None:
    report = verify(places["adapter"], places["base"], base=places["mcore"], forward=True)
    assert report.status == "different" and verdicts(report) == {"different"}
    gap = np.abs(straight(places["out"], "text") - straight(places["base"], "text")).max()
    assert report.data["forward"]["parts"]["text"]["max_abs"] == pytest.approx(gap, rel=1e-4)
