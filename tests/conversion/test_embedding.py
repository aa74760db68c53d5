"""Embedding models: not tied by their config.json, and without an output layer. Both ways, where something says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from references import differing, read_hf
from tiny import tiny_config, tiny_shapes, tiny_weights, write_tiny_hf

from vlconv.converters import (
    Hf2McoreOptions,
    Mcore2HfOptions,
    MismatchError,
    VerifyOptions,
    hf2mcore,
    mcore2hf,
    verify,
)

KINDS = ("qwen3_vl", "qwen3", "qwen2")


def embedding(directory: Path, kind: str, mark: str = "") -> dict[str, Any]:
    """A tiny model without its output layer, and with a file beside it that says what it is."""
    config = tiny_config(kind)
    tensors = {name: t for name, t in tiny_weights(tiny_shapes(config)).items() if name != "lm_head.weight"}
    assert len(tensors) == len(tiny_shapes(config)) - 1
    write_tiny_hf(directory, config, tensors=tensors)
    if mark:
        (directory / mark).write_text("[]")
    return tensors


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mark", ["modules.json", "config_sentence_transformers.json"])
@pytest.mark.parametrize("file_format", ["torch_dist", "torch"])
def test_seen_by_what_lies_beside_it(tmp_path: Path, kind: str, mark: str, file_format: Any) -> None:
    tensors = embedding(tmp_path / "hf", kind, mark)
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(format=file_format))
    report = mcore2hf(tmp_path / "mcore", tmp_path / "back")
    assert (report.data["tied"], report.data["output_layer"]) == (False, False)
    assert f"without an output layer, by {mark} beside config.json" in report.told["embeddings"]
    assert differing(read_hf(tmp_path / "back"), tensors) == []
    assert verify(tmp_path / "mcore", tmp_path / "back").status == "same"
    assert verify(tmp_path / "hf").status == "same"


def test_said_by_the_user(tmp_path: Path) -> None:
    tensors = embedding(tmp_path / "hf", "qwen3_vl")
    said = {"no_output_layer": True}
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(**said))
    mcore2hf(tmp_path / "mcore", tmp_path / "back", Mcore2HfOptions(**said))
    assert differing(read_hf(tmp_path / "back"), tensors) == []
    options = VerifyOptions(**said)
    assert verify(tmp_path / "mcore", tmp_path / "back", options).status == "same"
    assert verify(tmp_path / "hf", None, VerifyOptions(**said, on_disk=tmp_path)).status == "same"
    assert verify(tmp_path / "mcore", None, VerifyOptions(**said, on_disk=tmp_path)).status == "same"


def test_else_it_is_a_loss(tmp_path: Path) -> None:
    embedding(tmp_path / "hf", "qwen3_vl")
    with pytest.raises(MismatchError, match="there is no output layer among the weights") as refused:
        hf2mcore(tmp_path / "hf", tmp_path / "mcore")
    assert "--no-output-layer" in refused.value.hint
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(no_output_layer=True))
    with pytest.raises(MismatchError, match="there is no output layer among the weights"):
        mcore2hf(tmp_path / "mcore", tmp_path / "back")


@pytest.mark.parametrize("mark", ["", "modules.json"])
def test_a_reranker_keeps_its_output_layer(tmp_path: Path, mark: str) -> None:
    """Whatever is said of models without one: what is there is not lost."""
    tensors = write_tiny_hf(tmp_path / "hf", tiny_config("qwen3_vl"))
    if mark:
        (tmp_path / "hf" / mark).write_text("[]")
    hf2mcore(tmp_path / "hf", tmp_path / "mcore", Hf2McoreOptions(no_output_layer=True))
    mcore2hf(tmp_path / "mcore", tmp_path / "back")
    assert differing(read_hf(tmp_path / "back"), tensors) == []
