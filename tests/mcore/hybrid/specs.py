"""megatron-core's own config fields and layer specs of hybrids. Its specs know Transformer Engine's modules only."""

from __future__ import annotations

from typing import Any

from megatron.core.models.gpt import experimental_attention_variant_module_specs as variants
from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.transformer import TransformerConfig

from vlconv.converters.models.shared.config import ModelConfig

from .. import te

variants.TESpecProvider = te.Provider

ROTARY_PERCENT = 0.25


def fields(config: ModelConfig) -> dict[str, Any]:
    """The fields of TransformerConfig that other models leave alone."""
    text = config.text
    found: dict[str, Any] = {
        "layernorm_zero_centered_gamma": True,
        "attention_output_gate": True,
        "experimental_attention_variant": "gated_delta_net",
        "linear_attention_freq": [int(text.is_linear(i)) for i in range(text.layers)],
        "linear_conv_kernel_dim": text.kernel,
        "linear_key_head_dim": text.key_dim,
        "linear_value_head_dim": text.value_dim,
        "linear_num_key_heads": text.key_heads,
        "linear_num_value_heads": text.value_heads,
        "mtp_num_layers": text.mtp or None,
        # Without it a Gated DeltaNet asks for kernels of a library that runs on GPUs alone.
        "deterministic_mode": True,
    }
    if text.shared_ffn:
        found |= {"moe_shared_expert_intermediate_size": text.shared_ffn, "moe_shared_expert_gate": True}
    return found


def block(config: TransformerConfig, stage: int | None) -> Any:
    """The decoder's layers of this rank's pipeline stage and chunk."""
    return variants.get_transformer_block_with_experimental_attention_variant_spec(config, vp_stage=stage)


def mtp(config: TransformerConfig, decoder: Any, stage: int | None) -> Any:
    """The MTP head, on the last stage and None elsewhere; its layer is made like the decoder's last."""
    if not config.mtp_num_layers:
        return None
    return gpt_layer_specs.get_gpt_mtp_block_spec(config, decoder, use_transformer_engine=True, vp_stage=stage)
