"""Qwen3-VL with a multi-token-prediction head of two tensors, for tests of what becomes of one.

with_head(monkeypatch)      from now on the model and the layout mbridge know it
HEAD                        its tensors' names on the Hub -> their names in the layout
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from vlconv.converters.layouts import LAYOUTS
from vlconv.converters.models import MODELS
from vlconv.converters.models.shared.config import ModelConfig
from vlconv.converters.models.shared.model import Model, Shapes
from vlconv.converters.tensors.rules import rename

HEAD = {
    "mtp.fc.weight": "language_model.mtp.layers.0.eh_proj.weight",
    "mtp.layers.0.input_layernorm.weight": "language_model.mtp.layers.0.transformer_layer.input_layernorm.weight",
}
FIELD = "mtp_num_hidden_layers"


def shapes(config: ModelConfig) -> Shapes:
    """Its tensors on the Hub."""
    hidden = config.text.hidden
    return dict(zip(HEAD, ((hidden, 2 * hidden), (hidden,)), strict=True)) if config.text.mtp else {}


def with_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Teach the model and the layout."""
    plain, tensors, mbridge = MODELS["qwen3_vl"], Model.hf_tensors, LAYOUTS["mbridge"]

    def read_config(hf_config: Any, tied: bool) -> ModelConfig:
        config = plain.read_config(hf_config, tied)
        return replace(config, text=replace(config.text, mtp=hf_config["text_config"].get(FIELD) or 0))

    def headless(config: ModelConfig) -> ModelConfig:
        """Without the head that Qwen3.5 has."""
        return replace(config, text=replace(config.text, mtp=0))

    def rules(config: ModelConfig, rows: int) -> Iterator[Any]:
        yield from mbridge.rules(headless(config), rows)
        for name, shape in shapes(config).items():
            yield from rename(HEAD[name], name, shape)

    def spellings(config: ModelConfig) -> Any:
        return mbridge.spellings(headless(config))

    def extra_state(config: ModelConfig) -> Iterator[str]:
        return mbridge.extra_state(headless(config))

    model = replace(plain, read_config=read_config, traits=replace(plain.traits, mtp=True))
    monkeypatch.setitem(MODELS, "qwen3_vl", model)
    monkeypatch.setattr(Model, "hf_tensors", lambda self, config: tensors(self, headless(config)) | shapes(config))
    monkeypatch.setitem(LAYOUTS, "mbridge", replace(mbridge, rules=rules, spellings=spellings, extra_state=extra_state))
