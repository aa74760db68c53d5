"""Where config.json has each fact."""

from __future__ import annotations

from ..models.shared.config import in_section
from ..models.shared.traits import Traits
from .facts import GEOMETRY, VISION

RUNTIME = {
    "rope_theta": "text_config.rope_theta",
    "mrope_section": "text_config.rope_scaling.mrope_section",
    "rms_norm_eps": "text_config.rms_norm_eps",
    "experts_per_token": "text_config.num_experts_per_tok",
    "tied": "tie_word_embeddings",
    "dense_layers": "text_config.mlp_only_layers",
    "linear_layers": "text_config.layer_types",
    "partial_rotary": "text_config.partial_rotary_factor",
    "vision.fullatt_block_indexes": "vision_config.fullatt_block_indexes",
    "vision.window_size": "vision_config.window_size",
}
PATHS = {
    **{name: f"text_config.{field}" for name, field in GEOMETRY.items()},
    **{f"vision.{name}": f"vision_config.{field}" for name, field in VISION.items()},
    **RUNTIME,
}
"""Each fact's place in config.json, for messages: see place_of."""

IN_ROPE = ("rope_theta", "mrope_section", "partial_rotary")
"""Those of them that a model with rope_parameters has there."""


def place_of(name: str, traits: Traits) -> str:
    """Where the config.json of such a model has a fact."""
    path = in_section(PATHS.get(name, name), traits.flat_config)
    if traits.rope_parameters and name in IN_ROPE:
        parent, _, field = path.replace("rope_scaling.", "").rpartition(".")
        return ".".join(filter(None, (parent, "rope_parameters", field)))
    return path
