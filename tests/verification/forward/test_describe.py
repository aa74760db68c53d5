"""What is said of gaps between logits, whatever models made them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vlconv.converters.report import Report
from vlconv.converters.verification.forward import describe
from vlconv.converters.verification.forward.forward import Ran
from vlconv.converters.verification.forward.logits import Gap


def gap(**fields: Any) -> Gap:
    usual = {"positions": 96, "apart": 0, "other_token": 0, "max_abs": 1e-5, "spread": 1.0, "noise": 1e-4, "nan": 0}
    return Gap(**{**usual, "equal": False, **fields})


DIFFERENT = gap(apart=90, max_abs=2.0)
NOTHING = gap(nan=96, bare=96, max_abs=0.0, spread=0.0)


def told(ran: Ran, monkeypatch: pytest.MonkeyPatch, *, status: str = "different", sides: int = 2) -> Report:
    """A report of models that take no images, whose weights were compared before."""
    monkeypatch.setattr(describe, "_images", lambda forward: {None})
    monkeypatch.setattr(describe, "config_told", lambda *_: "config.json says the same of both")
    report = Report("verify", status, result=f"{status}: 2 tensors")
    report.data["forward"] = {}
    forward: Any = SimpleNamespace(models=[None] * sides, without_megatron={})
    describe.describe_ran(report, forward, ran)
    return report


def test_another_model_of_megatron_cores_is_named_though_weights_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    report = told(Ran(parts={"text": gap()}, megatron={"B": ("megatron-core 0", DIFFERENT)}), monkeypatch)
    assert report.told["so"].startswith("A and B compute the same, and megatron-core another model of B")
    assert report.result == "different: 2 tensors; logits differ"


@pytest.mark.parametrize(("status", "weights"), [("same", "are the same"), ("different", "differ")])
def test_nothing_is_concluded_of_no_numbers(monkeypatch: pytest.MonkeyPatch, status: str, weights: str) -> None:
    report = told(Ran(parts={"text": NOTHING}), monkeypatch, status=status)
    assert report.status == status and report.result == f"{status}: 2 tensors; logits are no numbers"
    assert report.told["so"].startswith(f"the weights {weights}, and what comes of them are no numbers")
    assert "nothing is compared" in report.told["logits_of_text"] and not report.warnings


def test_one_part_without_numbers_does_not_hide_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    report = told(Ran(parts={"text": NOTHING, "images": DIFFERENT}), monkeypatch)
    assert report.result.endswith("logits differ") and "changes what is computed" in report.told["so"]


def test_noise_that_may_hide_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not told(Ran(parts={"text": gap(noise=0.09)}), monkeypatch).warnings
    (warning,) = told(Ran(parts={"text": gap(noise=0.25)}), monkeypatch).warnings
    assert "up to 0.25, and the logits' own spread is 1: a fault may hide in it" in warning
    assert not told(Ran(parts={"text": gap(noise=0.25, apart=3, max_abs=1.0)}), monkeypatch).warnings


def test_positions_that_are_not_counted_are_told_of_noise_too(monkeypatch: pytest.MonkeyPatch) -> None:
    report = told(Ran(parts={"text": gap(unsure=3, max_abs=0.5)}), monkeypatch)
    assert "not counting 3 at which A takes other experts by itself" in report.told["logits_of_text"]
