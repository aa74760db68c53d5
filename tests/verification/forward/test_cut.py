"""--layers N: the first decoder layers of a model, and everything around them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forward import here, known, straight
from tiny import tiny_config, write_tiny_hf

from vlconv import NotComparable, verify
from vlconv.converters.checkpoint.hf_side import open_hf_side
from vlconv.converters.report import Silent
from vlconv.converters.verification.forward.model import Model, model_of_side
from vlconv.converters.workers import Workers

__all__ = ["here"]

pytestmark = [pytest.mark.versions, pytest.mark.usefixtures("here")]

MIXED = {"mlp_only_layers": [0, 3], "intermediate_size": 96}


def made(folder: Path, family: str, **text: Any) -> Path:
    known(family)
    write_tiny_hf(folder / "whole", tiny_config(family, text=text))
    return folder / "whole"


def cut(whole: Path, layers: int) -> Model:
    """A cut copy, written beside it."""
    model = model_of_side("A", open_hf_side(whole), layers)
    (whole.parent / "cut").mkdir()
    model.copy_to(whole.parent / "cut", Workers(1), Silent())
    return model


@pytest.mark.parametrize(
    ("family", "layers", "text"),
    [
        ("qwen3_vl", 2, {}),
        ("qwen3_vl", 1, {}),  # fewer than there are features of deepstack
        ("qwen3_5", 2, {}),  # before the first full attention, and without the multi-token-prediction head
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [
                ("qwen2_5_vl", 3, {}),
                ("qwen3_vl_moe", 2, {}),
                ("qwen3_5_moe", 3, {}),
                ("qwen3_moe", 2, MIXED),
                ("qwen3_next", 1, {}),
                ("qwen2", 1, {}),
            ]
        ),
    ],
)
def test_it_computes_what_the_model_does_without_its_last_layers(
    tmp_path: Path, family: str, layers: int, text: dict[str, Any]
) -> None:
    whole = made(tmp_path, family, **text)
    model = cut(whole, layers)
    assert not [name for name in model.reader.specs if name.startswith("mtp.")]
    assert model.config.text.layers == layers and model.copied == sum(s.nbytes for s in model.reader.specs.values())
    for part in ("text", "images") if model.config.vision else ("text",):
        expected = straight(whole, part, layers)
        assert np.array_equal(straight(tmp_path / "cut", part), expected)
        assert np.abs(straight(whole, part) - expected).max() > 0.1


def test_only_the_tensors_of_those_layers_are_read(tmp_path: Path) -> None:
    model = cut(made(tmp_path, "qwen3_vl"), 1)
    held = {name for name in model.side.reader.specs if ".language_model.layers." not in name}
    assert {name for name in model.reader.specs if ".language_model.layers." not in name} == held
    assert {n.split(".")[3] for n in model.reader.specs if ".language_model.layers." in n} == {"0"}
    document = json.loads((tmp_path / "cut" / "config.json").read_text())
    assert document["text_config"].pop("num_hidden_layers") == 1
    whole = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert whole["text_config"].pop("num_hidden_layers") == 4 and document == whole


def test_a_fault_behind_the_cut_is_not_seen(tmp_path: Path) -> None:
    config = tiny_config("qwen3")
    hf = write_tiny_hf(tmp_path / "a", config)
    name = "model.layers.2.mlp.down_proj.weight"
    write_tiny_hf(tmp_path / "b", config, tensors=hf | {name: torch.roll(hf[name], 1, 0)})
    for layers, verdict in ((2, "equal"), (3, "different"), (4, "different")):
        report = verify(tmp_path / "a", tmp_path / "b", forward=True, layers=layers)
        assert report.data["forward"]["parts"]["text"]["verdict"] == verdict and report.status == "different"
        assert bool(report.data["forward"]["copied"]["A"]) == (layers < 4)
        assert f"the first {layers} decoder layers alone" in report.told["forward"]


def test_more_layers_than_there_are(tmp_path: Path) -> None:
    hf = made(tmp_path, "qwen3")
    write_tiny_hf(tmp_path / "b", tiny_config("qwen3"))
    with pytest.raises(NotComparable, match="--layers 5 are more than the 4 that "):
        verify(hf, tmp_path / "b", forward=True, layers=5)
