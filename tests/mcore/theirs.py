"""transformers' own models of a family, in float32, with random weights of their own making."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from vlconv.converters.models.shared.config import ModelConfig, TextConfig

from .families import biased, hybrid, old_tower, text_only

THETA = 5e6
EPS = 1e-6
TOP_K = 2

_NAMES = {
    "qwen2": "Qwen2",
    "qwen2_5_vl": "Qwen2_5_VLText",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3Moe",
    "qwen3_vl": "Qwen3VLText",
    "qwen3_vl_moe": "Qwen3VLMoeText",
    "qwen3_5": "Qwen3_5Text",
    "qwen3_5_text": "Qwen3_5Text",
    "qwen3_5_moe": "Qwen3_5MoeText",
    "qwen3_5_moe_text": "Qwen3_5MoeText",
    "qwen3_next": "Qwen3Next",
}


def text_model(config: ModelConfig) -> Any:
    """transformers' text model of a family, without its output layer."""
    import transformers

    model, settings = (getattr(transformers, f"{_NAMES[config.model_type]}{end}") for end in ("Model", "Config"))
    return model(settings(**_settings(config))).float().eval()


def _settings(config: ModelConfig) -> dict[str, Any]:
    c = config.text
    rope = _rope(config)
    common: dict[str, Any] = {
        "vocab_size": c.vocab,
        "hidden_size": c.hidden,
        "intermediate_size": c.ffn,
        "num_hidden_layers": c.layers,
        "num_attention_heads": c.heads,
        "num_key_value_heads": c.groups,
        "rms_norm_eps": EPS,
        "rope_theta": THETA,
        "rope_scaling": rope,
        "rope_parameters": {**rope, "rope_theta": THETA},
        "max_position_embeddings": 4096,
        "attn_implementation": "eager",
    }
    if not biased(config):
        common |= {"head_dim": c.head_dim, "attention_bias": False}
    return common | (_experts(c) if c.experts else {}) | (_hybrid(config) if hybrid(config) else {})


def _rope(config: ModelConfig) -> dict[str, Any]:
    """Both spellings: 4.57 reads rope_scaling and rope_theta, 5 rope_parameters."""
    rope: dict[str, Any] = {"rope_type": "default"}
    if not text_only(config):
        # The sections add up to half a head.
        part = config.text.head_dim // 8
        rope["mrope_section"] = [config.text.head_dim // 2 - 2 * part, part, part]
    return rope


def _experts(c: TextConfig) -> dict[str, Any]:
    return {
        "num_experts": c.experts,
        "moe_intermediate_size": c.moe_ffn,
        "num_experts_per_tok": TOP_K,
        "decoder_sparse_step": 1,
        "mlp_only_layers": sorted(c.dense_layers),
        "norm_topk_prob": True,
    }


def _hybrid(config: ModelConfig) -> dict[str, Any]:
    """Only transformers 5 knows Qwen3.5. A quarter of each head is rotated."""
    c = config.text
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": THETA, "partial_rotary_factor": 0.25}
    if config.model_type != "qwen3_next":
        rope["mrope_section"] = [c.head_dim // 8 - 1, 1, 0]  # adds up to half of what is rotated
    return {
        "layer_types": ["linear_attention" if c.is_linear(i) else "full_attention" for i in range(c.layers)],
        "linear_conv_kernel_dim": c.kernel,
        "linear_key_head_dim": c.key_dim,
        "linear_value_head_dim": c.value_dim,
        "linear_num_key_heads": c.key_heads,
        "linear_num_value_heads": c.value_heads,
        "shared_expert_intermediate_size": c.shared_ffn,
        "rope_scaling": None,
        "rope_parameters": rope,
    }


_TOWERS = {
    "qwen2_5_vl": ("qwen2_5_vl", "Qwen2_5_VLVision"),
    "qwen3_5": ("qwen3_5", "Qwen3_5Vision"),
    "qwen3_5_moe": ("qwen3_5_moe", "Qwen3_5MoeVision"),
    "qwen3_vl": ("qwen3_vl", "Qwen3VLVision"),
    "qwen3_vl_moe": ("qwen3_vl_moe", "Qwen3VLMoeVision"),
}


def vision_block(config: ModelConfig) -> Any:
    """A block of transformers' tower."""
    return _vision(config, "Block", attn_implementation="eager").float().eval()


def vision_model(config: ModelConfig) -> Any:
    """transformers' tower whole."""
    return _vision(config, "Model").float().eval()


def _vision(config: ModelConfig, part: str, **options: Any) -> Any:
    v, (module, name) = config.tower, _TOWERS[config.model_type]
    sizes: dict[str, Any] = {
        "hidden_size": v.hidden,
        "num_heads": v.heads,
        "intermediate_size": v.ffn,
        "depth": v.depth,
        "out_hidden_size": v.out_hidden,
        "patch_size": v.patch,
        "temporal_patch_size": v.temporal_patch,
        "spatial_merge_size": v.merge,
        "in_channels": v.channels,
        "num_position_embeddings": v.positions,
        "deepstack_visual_indexes": list(v.deepstack),
        "hidden_act": "silu" if old_tower(config) else "gelu_pytorch_tanh",
        "attn_implementation": "eager",
    }
    at = f"transformers.models.{module}"
    settings = getattr(import_module(f"{at}.configuration_{module}"), f"{name}Config")(**sizes)
    return getattr(import_module(f"{at}.modeling_{module}"), f"{name}{part}")(settings, **options)
