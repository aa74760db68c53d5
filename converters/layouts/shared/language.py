"""The language model, the same in every layout but for its prefix and, in hybrid models, some forms.

Transformer Engine's names are the table's; a local-spec model spells some norms otherwise (`spellings`).
"""

from __future__ import annotations

from collections.abc import Iterator

from ...models import model_of
from ...models.shared.config import ModelConfig
from ...tensors.rules import Rule, pad_rows, rename
from ..layout import Spellings
from . import prediction_head
from .decoder_layer import (
    INSIDE,
    attention,
    attention_state,
    feed_forward,
    feed_forward_state,
    norm_spellings,
)
from .linear_attention import CORE, Forms


def language(
    config: ModelConfig,
    vocab_rows: int,
    m: str = "language_model.",
    norms: tuple[str, str] = INSIDE,
    forms: Forms = CORE,
) -> Iterator[Rule]:
    """The whole language model.

    Args:
        config: the model.
        vocab_rows: rows of embedding and output layer on the mcore side, padding included.
        m: what stands before `embedding.`, `decoder.`, `mtp.` and `output_layer.` on the mcore side.
        norms: INSIDE or BESIDE.
        forms: of what only hybrid models have.
    """
    c, h = config.text, model_of(config).text_prefix
    yield from pad_rows(
        f"{m}embedding.word_embeddings.weight", f"{h}embed_tokens.weight", c.vocab, vocab_rows, (c.hidden,)
    )
    for i in range(c.layers):
        names = (f"{m}decoder.layers.{i}", f"{h}layers.{i}")
        if c.is_linear(i):
            yield from forms.linear(config, *names)
        else:
            yield from attention(config, *names, norms[0], forms)
        yield from feed_forward(config, *names, norms[1], moe=c.is_moe(i))
    yield from rename(f"{m}decoder.final_layernorm.weight", f"{h}norm.weight", (c.hidden,))
    if c.mtp:
        yield from prediction_head.prediction_head(config, f"{m}mtp.layers.0", norms, forms)
    if c.has_output_layer:
        yield from pad_rows(f"{m}output_layer.weight", "lm_head.weight", c.vocab, vocab_rows, (c.hidden,))


def spellings(
    config: ModelConfig, m: str = "language_model.", forms: Forms = CORE, norms: tuple[str, str] = INSIDE
) -> Spellings:
    """Other names of the same tensors; of norms that are BESIDE there are none."""
    if config.text.mtp:
        yield from prediction_head.spellings(config, f"{m}mtp.layers.0", forms, norms)
    for i in range(config.text.layers if norms == INSIDE else 0):
        inside = forms.norm if config.text.is_linear(i) else INSIDE[0]
        yield from norm_spellings(f"{m}decoder.layers.{i}", inside, moe=config.text.is_moe(i))


def extra_state(config: ModelConfig, m: str = "language_model.", forms: Forms = CORE) -> Iterator[str]:
    """Modules of a Transformer-Engine decoder that carry `_extra_state`."""
    for i in range(config.text.layers):
        layer = f"{m}decoder.layers.{i}"
        if config.text.is_linear(i):
            yield from (f"{layer}.{module}" for module in forms.modules)
        else:
            yield from attention_state(config, layer)
        yield from feed_forward_state(config, layer, moe=config.text.is_moe(i))
    yield f"{m}decoder.final_layernorm"
    if config.text.mtp:
        yield from prediction_head.extra_state(config, f"{m}mtp.layers.0")


def stacks(config: ModelConfig, *towers: str) -> tuple[str, ...]:
    """The module lists that torch_dist checkpoints stack.

    All that are called `layers`, and those of `towers`; of hybrid models, whose layers are always keyed one by one,
    only the towers' lists, by their whole path.
    """
    hybrid = model_of(config).traits.linear_attention
    return towers if hybrid else ("layers", *(tower.rpartition(".")[2] for tower in towers))
