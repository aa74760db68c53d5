"""The fields of config.json, release by release as the Hub spells them, of tiny geometry."""

from __future__ import annotations

from typing import Any

IDS = {
    "bos_token_id": 280,
    "im_start": 281,
    "eos_token_id": 282,
    "vision_start_token_id": 283,
    "vision_end_token_id": 284,
    "image_token_id": 286,
    "video_token_id": 287,
}
VOCAB = 300

ARCHITECTURES = {
    "qwen3_vl": "Qwen3VLForConditionalGeneration",
    "qwen3_vl_moe": "Qwen3VLMoeForConditionalGeneration",
    "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_5": "Qwen3_5ForConditionalGeneration",
    "qwen3_5_moe": "Qwen3_5MoeForConditionalGeneration",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "qwen3_moe": "Qwen3MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM",
    "qwen3_5_text": "Qwen3_5ForCausalLM",
    "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
}

BASE: dict[str, Any] = {
    "attention_dropout": 0.0,
    "bos_token_id": IDS["bos_token_id"],
    "eos_token_id": IDS["eos_token_id"],
    "hidden_act": "silu",
    "hidden_size": 64,
    "initializer_range": 0.02,
    "intermediate_size": 96,
    "max_position_embeddings": 4096,
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "use_cache": True,
    "vocab_size": VOCAB,
}
TWO_GROUPS = BASE | {"num_key_value_heads": 2}

EXPERTS: dict[str, Any] = {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2}
SPARSE = EXPERTS | {"decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True}
ROUTED = {"output_router_logits": False, "router_aux_loss_coef": 0.001}
SHARED = {"shared_expert_intermediate_size": 40}

UNSCALED = {"rope_scaling": None, "rope_theta": 1000000}
ALL_SEEN = {"sliding_window": None, "use_sliding_window": False}

DELTA_NET: dict[str, Any] = {
    "full_attention_interval": 4,
    "head_dim": 32,
    "linear_conv_kernel_dim": 4,
    "linear_key_head_dim": 8,
    "linear_num_key_heads": 4,
    "linear_num_value_heads": 8,
    "linear_value_head_dim": 16,
}
"""Of every four layers, three with a Gated DeltaNet: 4 key heads of 8, 8 value heads of 16. Head dimension 32, of which
a quarter turns.
"""

QWEN3_VL = BASE | {
    "attention_bias": False,
    "dtype": "bfloat16",
    "head_dim": 16,
    "rope_scaling": {"mrope_interleaved": True, "mrope_section": [4, 2, 2], "rope_type": "default"},
    "rope_theta": 5000000,
}

QWEN2_5_VL = BASE | {
    "max_window_layers": 4,
    "rope_scaling": {"type": "mrope", "mrope_section": [2, 1, 1]},
    "rope_theta": 1000000.0,
    "sliding_window": 4096,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
}

QWEN2 = TWO_GROUPS | {  # no head_dim, and no word of the biases that queries, keys and values have
    "max_window_layers": 4,
    "rope_theta": 1000000.0,
    "sliding_window": 4096,
    "torch_dtype": "bfloat16",
    "use_sliding_window": False,
}

QWEN3 = (
    TWO_GROUPS
    | UNSCALED
    | ALL_SEEN
    | {"attention_bias": False, "head_dim": 16, "max_window_layers": 4, "torch_dtype": "bfloat16"}
)

QWEN3_NEXT = (
    TWO_GROUPS
    | DELTA_NET
    | SPARSE
    | ROUTED
    | SHARED
    | {"partial_rotary_factor": 0.25, "rope_scaling": None, "rope_theta": 10000000}
    | {"torch_dtype": "bfloat16", "use_sliding_window": False}
)
"""It has no layer_types, and no word of the multi-token-prediction head that its weights have."""

QWEN3_5 = (
    TWO_GROUPS
    | DELTA_NET
    | {
        "attention_bias": False,
        "attn_output_gate": True,
        "dtype": "bfloat16",
        "layer_types": ["linear_attention"] * 3 + ["full_attention"],
        "mamba_ssm_dtype": "float32",
        "mlp_only_layers": [],
        "mtp_num_hidden_layers": 1,
        "mtp_use_dedicated_embeddings": False,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [2, 1, 1],
            "partial_rotary_factor": 0.25,
            "rope_theta": 10000000,
            "rope_type": "default",
        },
    }
)

QWEN3_5_MOE = (
    {name: value for name, value in QWEN3_5.items() if name != "intermediate_size"} | EXPERTS | ROUTED | SHARED
)

TEXTS: dict[str, dict[str, Any]] = {
    "qwen3_vl": QWEN3_VL,
    "qwen3_vl_moe": QWEN3_VL | SPARSE,
    "qwen2_5_vl": QWEN2_5_VL,
    "qwen3_5": QWEN3_5,
    "qwen3_5_moe": QWEN3_5_MOE,
    "qwen2": QWEN2,
    "qwen3": QWEN3,
    "qwen3_moe": QWEN3 | SPARSE | ROUTED,
    "qwen3_next": QWEN3_NEXT,
    "qwen3_5_text": QWEN3_5,
    "qwen3_5_moe_text": QWEN3_5_MOE,
}
"""The language models."""

TOWER: dict[str, Any] = {
    "depth": 4,
    "hidden_size": 32,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "num_heads": 4,
    "out_hidden_size": 64,
    "patch_size": 4,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
}

QWEN3_TOWER = TOWER | {"hidden_act": "gelu_pytorch_tanh", "in_channels": 3, "num_position_embeddings": 16}

WINDOWED = {
    "fullatt_block_indexes": [1, 3],
    "hidden_act": "silu",
    "in_chans": 3,
    "tokens_per_second": 2,
    "window_size": 16,
}

VISIONS: dict[str, dict[str, Any]] = {
    "qwen3_vl": QWEN3_TOWER | {"deepstack_visual_indexes": [0, 2]},
    "qwen3_vl_moe": QWEN3_TOWER | {"deepstack_visual_indexes": [0, 2]},
    "qwen2_5_vl": TOWER | WINDOWED,
    "qwen3_5": QWEN3_TOWER | {"deepstack_visual_indexes": []},
    "qwen3_5_moe": QWEN3_TOWER | {"deepstack_visual_indexes": []},
}
"""The vision towers, of what has one."""

NESTED = ("qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe")
"""Whose language model has a section of its own, text_config."""
