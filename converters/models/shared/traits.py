"""What is peculiar to a model. Every room asks these; none outside models/ asks for a model's name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import NamedTuple


class Prefixes(NamedTuple):
    """What stands before the names of the language model and of the vision tower."""

    text: str  # before `layers.`, `embed_tokens.`, `norm.`
    vision: str  # before `blocks.`, `merger.`, `patch_embed.`


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """A model's answers. There are no defaults: a new model answers every question.

    Attributes:
        qkv_bias: query, key and value projections have a bias.
        qk_norm: queries and keys are normalised per head, so a tensor has the width of a head.
        head_dim_field: config.json states the head dimension; else it is hidden size / heads.
        experts: layers have a router and experts, but for those that the config keeps dense.
        flat_config: the releases' config.json holds the language model's fields at its top level, not in text_config.
        plain_rope_type: how the releases' config.json spells the type of an unscaled multimodal rope.
        later_prefixes: other prefixes of the same tensors, which later versions of transformers save; None: there are
            none.
        position_table: the vision tower has a learned table of positions.
        deepstack: mergers of their own look at vision blocks before the last one.
        windows: most vision blocks see a window of the image; config.json says which ones see all of it.
        gated_vision_mlp: the MLP of a vision block is [gate; up] and down; else it is two linear layers.
    """

    qkv_bias: bool
    qk_norm: bool
    head_dim_field: bool
    experts: bool
    flat_config: bool
    plain_rope_type: str
    later_prefixes: Prefixes | None
    position_table: bool
    deepstack: bool
    windows: bool
    gated_vision_mlp: bool


VISIBLE = ("qkv_bias", "qk_norm", "experts", "position_table")
"""The traits that a checkpoint's names show in every layout. No two models have the same of these."""

QUESTIONS = tuple(field.name for field in fields(Traits))
"""Every trait."""
