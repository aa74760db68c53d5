"""A model of fewer decoder layers: the first ones, with everything around them, and the vision tower whole."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from ...config.hf_config import text_section


def cut_config(hf_config: Mapping[str, Any], layers: int) -> dict[str, Any]:
    """A config.json of the first layers alone.

    Args:
        hf_config: of the whole model.
        layers: how many decoder layers are left, at most as many as there are.
    """
    config = copy.deepcopy(dict(hf_config))
    text: Any = text_section(config)[0]
    text["num_hidden_layers"] = layers
    if isinstance(kinds := text.get("layer_types"), list):
        text["layer_types"] = kinds[:layers]
    if isinstance(dense := text.get("mlp_only_layers"), list):
        text["mlp_only_layers"] = [layer for layer in dense if isinstance(layer, int) and layer < layers]
    return config
