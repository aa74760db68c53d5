"""The integers of a Qwen-VL model, whatever their source.

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
    tied: Annotated[bool, "tie_word_embeddings"]
    experts: Annotated[int, "text_config.num_experts"] = 0
    moe_ffn: Annotated[int, "text_config.moe_intermediate_size"] = 0
    dense_layers: frozenset[int] = frozenset()  # of a MoE model: the layers that stay dense

    def is_moe(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return self.experts > 0 and layer not in self.dense_layers


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
    vision: VisionConfig


def hf_path(part: type[TextConfig] | type[VisionConfig], name: str) -> str:
    """Where config.json holds a field: ("TextConfig", "ffn") -> "text_config.intermediate_size"."""
    hint = get_type_hints(part, include_extras=True)[name]
    return str(hint.__metadata__[0]) if hasattr(hint, "__metadata__") else name
