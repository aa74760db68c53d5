"""What is peculiar to a model. Every room asks these; none outside models/ asks for a model's name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, NamedTuple

ExpertsOnHub = Literal["transposed", "packed", "per-expert"]


class Prefixes(NamedTuple):
    """What stands before the names of the language model and of the vision tower."""

    text: str  # before `layers.`, `embed_tokens.`, `norm.`
    vision: str  # before `blocks.`, `merger.`, `patch_embed.`; "" where there is no tower


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """A model's answers. There are no defaults: a new model answers every question.

    Attributes:
        tower: it has a vision tower, and positions in three axes.
        qkv_bias: query, key and value projections have a bias.
        qk_norm: queries and keys are normalised per head, so a tensor has the width of a head.
        head_dim_field: config.json states the head dimension; else it is hidden size / heads.
        gated_attention: the query projection has as many rows again, which gate the output: per head [query | gate].
        linear_attention: most layers have a Gated DeltaNet instead of attention; config.json says which.
        fused_linear_projections: a Gated DeltaNet's projections are two tensors, interleaved per key head; else four.
        zero_centred_norms: a norm multiplies by 1 + weight, but for a Gated DeltaNet's output norm.
        experts: layers have a router and experts, but for those that the config keeps dense.
        dense_layers: config.json may keep some of the layers of a model with experts dense.
        shared_expert: and one more, with a gate of its own, that all tokens pass.
        experts_on_hub: how the releases' files hold experts: "transposed" [E, in, out] against a Linear's weight,
            "packed" [E, out, in], or "per-expert", each by itself.
        mtp: it may have a multi-token-prediction head.
        flat_config: the releases' config.json holds the language model's fields at its top level, not in text_config.
        plain_rope_type: how the releases' config.json spells the type of an unscaled multimodal rope.
        rope_parameters: config.json holds the rope in rope_parameters, which transformers 5 alone reads: it alone knows
            the model.
        later_prefixes: other prefixes of the same tensors, which later versions of transformers save; None: there are
            none.
        position_table: the vision tower has a learned table of positions.
        deepstack: mergers of their own look at vision blocks before the last one.
        windows: most vision blocks see a window of the image; config.json says which ones see all of it.
        gated_vision_mlp: the MLP of a vision block is [gate; up] and down; else it is two linear layers.
    """

    tower: bool
    qkv_bias: bool
    qk_norm: bool
    head_dim_field: bool
    gated_attention: bool
    linear_attention: bool
    fused_linear_projections: bool
    zero_centred_norms: bool
    experts: bool
    dense_layers: bool
    shared_expert: bool
    experts_on_hub: ExpertsOnHub
    mtp: bool
    flat_config: bool
    plain_rope_type: str
    rope_parameters: bool
    later_prefixes: Prefixes | None
    position_table: bool
    deepstack: bool
    windows: bool
    gated_vision_mlp: bool


VISIBLE = ("tower", "qkv_bias", "qk_norm", "linear_attention", "experts", "position_table")
"""The traits that a checkpoint's names show in every layout. Two models with the same of these only a config tells
apart."""

OF_TOWER = ("tower", "position_table")
"""Those of them that the names of a vision tower show."""

QUESTIONS = tuple(field.name for field in fields(Traits))
"""Every trait."""
