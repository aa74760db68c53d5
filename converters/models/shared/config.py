"""The integers of a Qwen model, whatever their source.

A Hugging Face config.json, Megatron's args, or bare shapes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, get_type_hints

from ...tensors.spec import Shape

# The text beside a type is the place of the value in config.json, for error messages: see hf_path.


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The language model."""

    layers: Annotated[int, "text_config.num_hidden_layers"]
    hidden: Annotated[int, "text_config.hidden_size"]
    heads: Annotated[int, "text_config.num_attention_heads"]
    groups: Annotated[int, "text_config.num_key_value_heads"]
    head_dim: Annotated[int, "text_config.head_dim"]
    ffn: Annotated[int, "text_config.intermediate_size"]
    vocab: Annotated[int, "text_config.vocab_size"]
    tied: Annotated[bool, "tie_word_embeddings"]  # or without an output layer: see `headless`
    experts: Annotated[int, "text_config.num_experts"] = 0
    moe_ffn: Annotated[int, "text_config.moe_intermediate_size"] = 0
    dense_layers: Annotated[frozenset[int], "text_config.mlp_only_layers"] = (
        frozenset()
    )  # of a MoE model: the layers that stay dense
    shared_ffn: Annotated[int, "text_config.shared_expert_intermediate_size"] = 0  # of the expert that all tokens pass
    linear_layers: Annotated[frozenset[int], "text_config.layer_types"] = frozenset()  # a Gated DeltaNet, no attention
    key_heads: Annotated[int, "text_config.linear_num_key_heads"] = 0  # of the Gated DeltaNet, as all below
    value_heads: Annotated[int, "text_config.linear_num_value_heads"] = 0
    key_dim: Annotated[int, "text_config.linear_key_head_dim"] = 0
    value_dim: Annotated[int, "text_config.linear_value_head_dim"] = 0
    kernel: Annotated[int, "text_config.linear_conv_kernel_dim"] = 0
    headless: bool = False  # not tied, and no output layer: an embedding model
    mtp: Annotated[int, "text_config.mtp_num_hidden_layers"] = 0  # layers of the multi-token-prediction head

    def is_moe(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return self.experts > 0 and layer not in self.dense_layers

    def is_linear(self, layer: int) -> bool:
        """Whether a layer has a Gated DeltaNet instead of attention."""
        return layer in self.linear_layers

    @property
    def has_output_layer(self) -> bool:
        """Whether there is an output layer of its own."""
        return not self.tied and not self.headless

    @property
    def key_width(self) -> int:
        """Rows of all keys (and of all queries) of a Gated DeltaNet."""
        return self.key_heads * self.key_dim

    @property
    def value_width(self) -> int:
        """Rows of all values of a Gated DeltaNet."""
        return self.value_heads * self.value_dim


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower and its mergers."""

    depth: Annotated[int, "vision_config.depth"]
    hidden: Annotated[int, "vision_config.hidden_size"]
    heads: Annotated[int, "vision_config.num_heads"]
    ffn: Annotated[int, "vision_config.intermediate_size"]
    out_hidden: Annotated[int, "vision_config.out_hidden_size"]
    patch: Annotated[int, "vision_config.patch_size"]
    temporal_patch: Annotated[int, "vision_config.temporal_patch_size"]
    channels: Annotated[int, "vision_config.in_channels"]
    merge: Annotated[int, "vision_config.spatial_merge_size"]
    positions: Annotated[int, "vision_config.num_position_embeddings"] = 0
    deepstack: Annotated[tuple[int, ...], "vision_config.deepstack_visual_indexes"] = ()

    @property
    def patch_shape(self) -> Shape:
        """Shape of the patch embedding's kernel: [hidden, channels, time, height, width]."""
        return (self.hidden, self.channels, self.temporal_patch, self.patch, self.patch)

    @property
    def merged(self) -> int:
        """Width after merge x merge patches are laid side by side."""
        return self.hidden * self.merge**2


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """All integers that decide names and shapes."""

    model_type: str  # a key of MODELS
    text: TextConfig
    vision: VisionConfig | None = None  # None: a text-only model, or one whose tower is not there

    @property
    def tower(self) -> VisionConfig:
        """The vision tower, of what has one."""
        assert self.vision is not None
        return self.vision


def hf_path(part: type[TextConfig] | type[VisionConfig], name: str, *, flat: bool = False) -> str:
    """Where config.json holds a field: (TextConfig, "ffn") -> "text_config.intermediate_size".

    Args:
        part: whose field it is.
        name: of the field.
        flat: the language model's fields are at the top level: traits.flat_config.
    """
    hint = get_type_hints(part, include_extras=True)[name]
    path = str(hint.__metadata__[0]) if hasattr(hint, "__metadata__") else name
    return in_section(path, flat)


def in_section(path: str, flat: bool) -> str:
    """A path in config.json as a flat one has it: "text_config.hidden_size" -> "hidden_size"."""
    return path.removeprefix("text_config.") if flat else path
