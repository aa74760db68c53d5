"""The integers of a Qwen-VL model, whatever their source: a Hugging Face config.json, Megatron's args, or bare shapes."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..tensors import Shape


def _hf(path: str, default: object = ...) -> int:
    """A field with the place of its value in config.json, for error messages."""
    extra = {} if default is ... else {"default": default}
    return field(metadata={"hf": path}, **extra)  # type: ignore[call-overload, no-any-return]


@dataclass(frozen=True, slots=True)
class TextConfig:
    """The language model."""

    layers: int = _hf("text_config.num_hidden_layers")
    hidden: int = _hf("text_config.hidden_size")
    heads: int = _hf("text_config.num_attention_heads")
    groups: int = _hf("text_config.num_key_value_heads")
    head_dim: int = _hf("text_config.head_dim")
    ffn: int = _hf("text_config.intermediate_size")
    vocab: int = _hf("text_config.vocab_size")
    tied: bool = field(metadata={"hf": "tie_word_embeddings"})
    experts: int = _hf("text_config.num_experts", 0)
    moe_ffn: int = _hf("text_config.moe_intermediate_size", 0)
    dense_layers: frozenset[int] = frozenset()  # of a MoE model: the layers that stay dense

    def is_moe(self, layer: int) -> bool:
        """Whether a layer has experts."""
        return self.experts > 0 and layer not in self.dense_layers


@dataclass(frozen=True, slots=True)
class VisionConfig:
    """The vision tower and its mergers."""

    depth: int = _hf("vision_config.depth")
    hidden: int = _hf("vision_config.hidden_size")
    heads: int = _hf("vision_config.num_heads")
    ffn: int = _hf("vision_config.intermediate_size")
    out_hidden: int = _hf("vision_config.out_hidden_size")
    patch: int = _hf("vision_config.patch_size")
    temporal_patch: int = _hf("vision_config.temporal_patch_size")
    channels: int = _hf("vision_config.in_channels")
    merge: int = _hf("vision_config.spatial_merge_size")
    positions: int = _hf("vision_config.num_position_embeddings", 0)
    deepstack: tuple[int, ...] = field(default=(), metadata={"hf": "vision_config.deepstack_visual_indexes"})

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

    model_type: str  # "qwen3_vl", "qwen3_vl_moe", "qwen2_5_vl": a key of MODELS
    text: TextConfig
    vision: VisionConfig


def hf_path(part: type[TextConfig] | type[VisionConfig], name: str) -> str:
    """Where config.json holds a field: ("TextConfig", "ffn") -> "text_config.intermediate_size"."""
    return str(next(f for f in fields(part) if f.name == name).metadata.get("hf", name))
