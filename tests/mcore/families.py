"""What the witness knows of a model by its name alone. Nothing here asks vlconv's models."""

from __future__ import annotations

from vlconv.converters.models.shared.config import ModelConfig

_HYBRID = {"qwen3_5", "qwen3_5_moe", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"}
_TEXT_ONLY = {"qwen2", "qwen3", "qwen3_moe", "qwen3_5_text", "qwen3_5_moe_text", "qwen3_next"}
_BIASED = {"qwen2", "qwen2_5_vl"}


def text_only(config: ModelConfig) -> bool:
    """Whether the family has no tower: its language model stands alone, in Megatron and on the Hub.

    A Qwen-VL without its tower is none of these.
    """
    return config.model_type in _TEXT_ONLY


def hybrid(config: ModelConfig) -> bool:
    """Whether most layers have a Gated DeltaNet, attention has an output gate, and norms are zero-centred."""
    return config.model_type in _HYBRID


def biased(config: ModelConfig) -> bool:
    """Whether q, k and v have a bias, and q and k no norm."""
    return config.model_type in _BIASED


def old_tower(config: ModelConfig) -> bool:
    """Whether the tower is Qwen2.5-VL's."""
    return config.model_type == "qwen2_5_vl"


def language_top(config: ModelConfig) -> str:
    """The Hub's prefix of the language model."""
    return "model" if old_tower(config) or text_only(config) else "model.language_model"


def vision_top(config: ModelConfig) -> str:
    """The Hub's prefix of the vision tower."""
    return "visual" if old_tower(config) else "model.visual"


def stands_alone(config: ModelConfig, bare: bool | None) -> bool:
    """Whether Megatron's names of the language model have no prefix.

    Args:
        config: the model.
        bare: what was asked for; None: as the family has it.
    """
    return text_only(config) if bare is None else bare
