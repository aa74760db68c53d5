"""What is made of megatron-core's logits beside transformers', in verify of one checkpoint and of two sides."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forward import here, straight
from refusing import edit_config
from tiny import tiny_config, write_tiny_hf

from vlconv import NotComparable, hf2mcore, verify
from vlconv.converters.options import McoreSource
from vlconv.converters.verification.forward import forward as running
from vlconv.converters.verification.forward import ready as readying
from vlconv.converters.verification.side_path import SidePath
from vlconv.converters.verification.sides import _runs_by_itself

__all__ = ["here"]

pytestmark = [pytest.mark.usefixtures("here")]


@pytest.fixture(scope="module", params=["qwen3", "qwen3_moe"])
def saved(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """A Hugging Face directory, and the checkpoint made of it."""
    folder = tmp_path_factory.mktemp("beside")
    write_tiny_hf(folder / "hf", tiny_config(request.param, text={"num_hidden_layers": 2}))
    hf2mcore(folder / "hf", folder / "mcore", make_vocab_size_divisible_by=128)
    return folder / "hf", folder / "mcore"


def computing(monkeypatch: pytest.MonkeyPatch, hf: Path, apart: int) -> None:
    """Let megatron-core compute what transformers does of a directory, but for some positions."""

    def run_megatron(side: Any, ids: Any, logits: Path, layers: int | None, device: str) -> str:
        found = straight(hf, "text", layers)
        found[0, :apart, 0] += 1
        assert ids.shape == found.shape[:2] and device == "cpu"
        np.save(logits, found)
        return "megatron-core 0"

    monkeypatch.setattr(running, "run_megatron", run_megatron)


@pytest.mark.parametrize("apart", [0, 5, 20])
def test_a_checkpoint_alone(saved: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, apart: int) -> None:
    hf, mcore = saved
    computing(monkeypatch, hf, apart)
    report = verify(mcore, forward=True)
    found = report.data["forward"]["megatron_core"]["A"]
    picks = found["few"] > 0
    verdict = "equal" if not apart else "few" if picks and apart == 5 else "different"
    assert (found["verdict"], found["apart"], found["by"]) == (verdict, apart, "megatron-core 0")
    assert report.status == ("different" if verdict == "different" else "same")
    assert any("near tie" in warning for warning in report.warnings) == (verdict == "few")
    assert ("compute different models" in report.told["so"]) == (verdict == "different")
    assert report.data["forward"]["copied"]["A"] > 0 and "not_proven" not in report.told


def test_beside_another_side(saved: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    hf, mcore = saved
    computing(monkeypatch, hf, 20)
    report = verify(hf, mcore, forward=True, layers=1)
    assert report.data["forward"]["parts"]["text"]["verdict"] == "equal"
    assert report.data["forward"]["megatron_core"]["B"]["verdict"] == "different" == report.status
    assert report.result.startswith("different: the weights are the same, the logits are not: text by megatron-core")
    assert report.told["so"].startswith("A and B compute the same, and megatron-core another model of B")


def test_where_megatron_core_fails(saved: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> str:
        raise NotComparable("it was killed")

    hf, mcore = saved
    monkeypatch.setattr(running, "run_megatron", fails)
    with pytest.raises(NotComparable, match="it was killed"):
        verify(mcore, forward=True)
    report = verify(mcore, hf, forward=True)
    assert report.status == "same" and report.data["forward"]["parts"]["text"]["verdict"] == "equal"
    assert report.data["forward"]["megatron_core"] == {"A": {"not_run": "it was killed"}}
    assert "A: megatron-core did not compute this: it was killed" in report.warnings


def test_what_megatron_core_does_not_compute(saved: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    hf, mcore = saved
    monkeypatch.setattr(readying, "why_not", lambda side: "it has three eyes")
    with pytest.raises(NotComparable, match="nothing to compare with: it has three eyes"):
        verify(mcore, forward=True)
    report = verify(hf, mcore, forward=True)
    assert report.status == "same" and report.told["b_megatron_core"] == "does not run this: it has three eyes"
    assert report.data["forward"]["megatron_core"] == {"B": {"not_run": "it has three eyes"}}


def test_no_number_is_no_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config("qwen3", text={"num_hidden_layers": 1})
    hf = write_tiny_hf(tmp_path / "hf", config)
    hf["model.norm.weight"][:] = math.nan
    write_tiny_hf(tmp_path / "hf", config, tensors=hf)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    computing(monkeypatch, tmp_path / "hf", 0)
    with pytest.raises(NotComparable, match="compute no numbers of it"):
        verify(tmp_path / "mcore", forward=True)
    report = verify(tmp_path / "hf", tmp_path / "mcore", forward=True)
    assert report.status == "same" and report.result.endswith("logits are no numbers")
    assert "compute no numbers of it" in report.data["forward"]["megatron_core"]["B"]["not_run"]


def test_each_side_is_run_with_its_own_config(
    saved: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """hf2mcore has put it beside the checkpoint; the other side's would hide what is wrong in that."""
    hf, mcore = saved
    other = shutil.copytree(hf, tmp_path / "other")
    edit_config(other, lambda c: c.update(hidden_act="gelu"))
    computing(monkeypatch, hf, 0)
    report = verify(mcore, other, forward=True)
    assert report.status == "different" and "hidden_act (silu and gelu)" in report.told["so"]
    beside = str(mcore / "huggingface")
    assert report.data["forward"]["config_from"] == {"A": beside, "B": str(other)}
    assert report.data["forward"]["megatron_core"]["A"]["verdict"] == "equal" and "config_json" not in report.told


def test_one_config_of_both_is_told(saved: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hf, mcore = saved
    bare = shutil.copytree(mcore, tmp_path / "bare")
    for folder in bare.rglob("huggingface"):
        shutil.rmtree(folder)
    computing(monkeypatch, hf, 0)
    for sides in ((bare, hf), (hf, bare)):
        report = verify(*sides, forward=True, dry_run=True)
        assert report.told["config_json"].startswith("A and B are run with the same one")
        assert set(report.data["forward"]["config_from"].values()) == {str(hf)}
    assert "config_json" not in verify(mcore, hf, forward=True, dry_run=True).told


@pytest.mark.parametrize("asked", [McoreSource(carry=("model.visual.",)), McoreSource(mtp="carry")])
def test_what_goes_along_is_of_the_other_side(saved: tuple[Path, Path], asked: McoreSource) -> None:
    """A folder `huggingface` holds no weights."""
    source = SidePath(saved[1])
    assert _runs_by_itself(source, McoreSource())
    assert not _runs_by_itself(source, asked)
