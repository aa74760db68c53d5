"""Config and tensors of a multi-token-prediction head are brought together, or refused: every case."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from heads import HEAD, with_head
from mcore.tiny import tiny

from vlconv.converters.checkpoint.absent.mtp import Head, layers_of, settle_head, with_layers, without_head
from vlconv.converters.errors import MismatchError
from vlconv.converters.models import MODELS

THERE = [*HEAD.values(), "language_model.decoder.final_layernorm.weight"]
NONE = THERE[-1:]
SAYS: dict[str, Any] = {"text_config": {"mtp_num_hidden_layers": 1, "a": [{"b": 2}]}, "model_type": "qwen3_vl"}
SILENT: dict[str, Any] = {"text_config": {"a": [{"b": 2}]}, "model_type": "qwen3_vl"}


@pytest.fixture(autouse=True)
def head(monkeypatch: pytest.MonkeyPatch) -> None:
    with_head(monkeypatch)


def settled(promised: int | None, names: list[str], asked: Any, **how: Any) -> Head:
    """`promised` None: config.json has no word for it."""
    hf_config = SILENT if promised is None else {"text_config": {"mtp_num_hidden_layers": promised}}
    config = with_layers(tiny(), promised or 0)
    return settle_head(config, hf_config, names, asked, where="the checkpoint", whose="config.json", **how)


@pytest.mark.parametrize(
    ("promised", "names", "asked", "whole", "read", "carried", "dropped"),
    [
        (0, NONE, None, 0, 0, False, False),
        (1, THERE, None, 1, 1, False, False),
        (1, THERE, "require", 1, 1, False, False),
        (1, NONE, "carry", 1, 0, True, False),
        (1, NONE, "drop", 0, 0, False, False),
        (1, THERE, "drop", 0, 0, False, True),
        (0, THERE, "drop", 0, 0, False, True),
        (0, NONE, "drop", 0, 0, False, False),
        (None, NONE, None, 0, 0, False, False),
        (None, THERE, None, 1, 1, False, False),
        (None, THERE, "require", 1, 1, False, False),
        (None, THERE, "drop", 0, 0, False, True),
        (None, NONE, "carry", 0, 0, True, False),  # how many layers, the reference's weights say
    ],
)
def test_what_goes_together(
    promised: int | None, names: list[str], asked: Any, whole: int, read: int, carried: bool, dropped: bool
) -> None:
    found = settled(promised, names, asked)
    assert (found.config.text.mtp, found.layers, found.carried, found.dropped) == (whole, read, carried, dropped)
    stated = found.hf_config["text_config"].get("mtp_num_hidden_layers")
    assert stated == (None if promised is None else whole)
    assert found.config.text == replace(tiny().text, mtp=whole)


@pytest.mark.parametrize(
    ("promised", "names", "asked", "says", "hint"),
    [
        (1, NONE, None, "promises a multi-token-prediction head", ["--mtp carry", "--mtp drop"]),
        (1, NONE, "require", "and the checkpoint holds none", ["--mtp carry", "--mtp drop"]),
        (0, THERE, None, "promises none", ["--mtp drop"]),
        (0, THERE, "require", "promises none", ["--mtp drop"]),
        (1, THERE, "carry", "holds a multi-token-prediction head itself", ["Leave --mtp carry out"]),
        (None, THERE, "carry", "holds a multi-token-prediction head itself", ["Leave --mtp carry out"]),
        (0, NONE, "carry", "there is no multi-token-prediction head", ["Leave --mtp carry out"]),
        (0, NONE, "require", "there is no multi-token-prediction head", ["Leave --mtp require out"]),
        (None, NONE, "require", "there is no multi-token-prediction head", ["Leave --mtp require out"]),
    ],
)
def test_what_does_not(promised: int | None, names: list[str], asked: Any, says: str, hint: list[str]) -> None:
    with pytest.raises(MismatchError, match=says) as fault:
        settled(promised, names, asked)
    assert all(words in fault.value.hint for words in hint)
    with pytest.raises(MismatchError) as alone:
        settled(promised, names, asked, ways=("drop",))
    assert "--mtp carry takes" not in alone.value.hint


def test_a_model_that_has_none_promises_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = MODELS["qwen3_vl"]
    monkeypatch.setitem(MODELS, "qwen3_vl", replace(model, traits=replace(model.traits, mtp=False)))
    with pytest.raises(MismatchError, match="promises none"):
        settled(None, THERE, None)


def test_a_config_without_one_is_the_same_but_for_that() -> None:
    found = without_head({"hf": [SAYS], "mtp_num_hidden_layers": 2})
    inner = {"text_config": {"mtp_num_hidden_layers": 0, "a": [{"b": 2}]}, "model_type": "qwen3_vl"}
    assert found == {"hf": [inner], "mtp_num_hidden_layers": 0}
    assert SAYS["text_config"]["mtp_num_hidden_layers"] == 1
    assert without_head(SILENT) == SILENT


def test_layers_are_counted_by_their_numbers() -> None:
    assert layers_of(["mtp.layers.0.a", "x.mtp.layers.0.b", "mtp.layers.11.a", "mtp.fc.weight", "layers.3.a"]) == 2
