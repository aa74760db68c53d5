"""What Megatron-LM's args say of hybrids."""

from __future__ import annotations

from typing import Any

from vlconv.converters.models.shared.config import TextConfig


def arguments(text: TextConfig) -> dict[str, Any]:
    """The arguments that other models leave alone, by name."""
    return {
        "experimental_attention_variant": "gated_delta_net",
        "linear_attention_freq": [int(text.is_linear(i)) for i in range(text.layers)],
        "linear_conv_kernel_dim": text.kernel,
        "linear_key_head_dim": text.key_dim,
        "linear_value_head_dim": text.value_dim,
        "linear_num_key_heads": text.key_heads,
        "linear_num_value_heads": text.value_heads,
        "attention_output_gate": True,
        "apply_layernorm_1p": True,
        "rotary_percent": 0.25,
        "mtp_num_layers": text.mtp or None,
        "moe_shared_expert_intermediate_size": text.shared_ffn or None,
        "moe_shared_expert_gate": text.shared_ffn > 0,
    }
