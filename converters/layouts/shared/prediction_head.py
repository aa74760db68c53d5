"""The head for multi-token prediction: two norms, a projection of both, one layer that attends, a norm."""

from __future__ import annotations

from collections.abc import Iterator

from ...models.shared.config import ModelConfig
from ...models.shared.model import MTP
from ...tensors.rules import Copy, hulls, rename
from ..layout import Spellings
from .decoder_layer import (
    BESIDE,
    INSIDE,
    attention,
    attention_state,
    feed_forward,
    feed_forward_state,
    norm_spellings,
)
from .linear_attention import Forms

LAYER, MODEL_LAYER = "transformer_layer", "mtp_model_layer"
"""The layer inside: its name in every torch_dist checkpoint, and what newer versions call the module."""


def prediction_head(config: ModelConfig, m: str, norms: tuple[str, str], forms: Forms) -> Iterator[Copy]:
    """The table; `m` ends in the number of the head's layer."""
    c = config.text
    yield from rename(f"{m}.enorm.weight", f"{MTP}pre_fc_norm_embedding.weight", (c.hidden,))
    yield from rename(f"{m}.hnorm.weight", f"{MTP}pre_fc_norm_hidden.weight", (c.hidden,))
    yield from rename(f"{m}.eh_proj.weight", f"{MTP}fc.weight", (c.hidden, 2 * c.hidden))
    yield from rename(f"{m}.final_layernorm.weight", f"{MTP}norm.weight", (c.hidden,))
    names = (f"{m}.{LAYER}", f"{MTP}layers.0")
    yield from attention(config, *names, norms[0], forms)
    yield from feed_forward(config, *names, norms[1], moe=bool(c.experts), form="per-expert")


def spellings(config: ModelConfig, m: str, forms: Forms, norms: tuple[str, str]) -> Spellings:
    """The inner layer under its other name, and its norms as a local-spec model has them."""
    inner = f"{m}.{LAYER}."
    names = hulls(copy.left for copy in prediction_head(config, m, norms, forms))
    local = [f"{inner}{norm}weight" for norm in BESIDE]
    for name in dict.fromkeys([*(n for n in names if n.startswith(inner)), *local]):
        yield f"{m}.{MODEL_LAYER}.{name.removeprefix(inner)}", name
    if norms == INSIDE:
        yield from norm_spellings(f"{m}.{LAYER}", INSIDE[0], moe=bool(config.text.experts))


def extra_state(config: ModelConfig, m: str) -> Iterator[str]:
    """Modules that carry `_extra_state`."""
    yield from (f"{m}.{module}" for module in ("enorm", "hnorm", "eh_proj", "final_layernorm"))
    yield from attention_state(config, f"{m}.{LAYER}")
    yield from feed_forward_state(config, f"{m}.{LAYER}", moe=bool(config.text.experts))
