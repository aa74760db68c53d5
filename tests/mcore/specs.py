"""megatron-core's own layer specs, with stand-ins where they name Transformer Engine.

Also the configs that go with them.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from megatron.core.models.gpt import gpt_layer_specs
from megatron.core.models.vision import vit_layer_specs
from megatron.core.tensor_parallel import ColumnParallelLinear, RowParallelLinear
from megatron.core.transformer import TransformerConfig
from megatron.core.transformer.torch_norm import WrappedTorchNorm
from torch.nn.functional import gelu, silu

from vlconv.converters.models.shared.config import ModelConfig

from . import te
from .families import biased, hybrid, old_tower
from .hybrid import specs as hybrids
from .topology import Spec, Topology

# The names under which megatron-core's spec functions look for Transformer Engine, absent or mocks without that
# library.
gpt_layer_specs.TESpecProvider = te.Provider
gpt_layer_specs.TENorm = te.Norm
vit_layer_specs.TELayerNormColumnParallelLinear = te.NormColumnLinear
vit_layer_specs.TERowParallelLinear = te.RowLinear
vit_layer_specs.TEDotProductAttention = te.CoreAttention


def _plain(dtype: torch.dtype) -> dict[str, Any]:
    """No fused kernels, no randomness: what a CPU can do."""
    return {
        "params_dtype": dtype,
        "bf16": dtype == torch.bfloat16,
        "use_cpu_initialization": True,
        "perform_initialization": False,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
        "bias_activation_fusion": False,
        "bias_dropout_fusion": False,
        "masked_softmax_fusion": False,
        "apply_rope_fusion": False,
        "gradient_accumulation_fusion": False,
        "persist_layer_norm": False,
        "attention_softmax_in_fp32": True,
    }


def language_config(
    config: ModelConfig,
    topology: Topology,
    grouped: bool = False,
    dtype: torch.dtype = torch.bfloat16,
    eps: float = 1e-6,
    topk: int = 2,
) -> TransformerConfig:
    """The language model's TransformerConfig: RMSNorm, query groups, gated SiLU.

    Qwen3 with norms on q and k, Qwen2.5 with a bias in linear_qkv.
    """
    text = config.text
    return TransformerConfig(
        num_layers=text.layers,
        hidden_size=text.hidden,
        num_attention_heads=text.heads,
        num_query_groups=text.groups,
        kv_channels=text.head_dim,
        ffn_hidden_size=text.ffn,
        normalization="RMSNorm",
        layernorm_epsilon=eps,
        qk_layernorm=not biased(config),
        add_qkv_bias=biased(config),
        add_bias_linear=False,
        gated_linear_unit=True,
        activation_func=silu,
        pipeline_dtype=dtype,
        tensor_model_parallel_size=topology.tp,
        pipeline_model_parallel_size=topology.pp,
        virtual_pipeline_model_parallel_size=topology.vpp if topology.vpp > 1 else None,
        num_layers_in_first_pipeline_stage=topology.first,
        num_layers_in_last_pipeline_stage=topology.last,
        pipeline_model_parallel_layout=topology.layout,
        expert_model_parallel_size=topology.ep,
        expert_tensor_parallel_size=topology.expert_tp,
        **_experts(config, grouped, topk),
        **(hybrids.fields(config) if hybrid(config) else {}),
        **_plain(dtype),
    )


def _experts(config: ModelConfig, grouped: bool, topk: int) -> dict[str, Any]:
    text = config.text
    if not text.experts:
        return {}
    return {
        "num_moe_experts": text.experts,
        "moe_ffn_hidden_size": text.moe_ffn,
        "moe_router_topk": topk,
        "moe_router_pre_softmax": False,
        "moe_router_load_balancing_type": "none",
        "moe_aux_loss_coeff": 0.0,
        "moe_token_dispatcher_type": "allgather",
        "moe_grouped_gemm": grouped,
        # A list makes megatron-core write per-layer keys, so it is given only where layers differ.
        "moe_layer_freq": [int(text.is_moe(i)) for i in range(text.layers)] if text.dense_layers else 1,
    }


def vision_config(
    config: ModelConfig, topology: Topology, dtype: torch.dtype = torch.bfloat16, eps: float = 1e-6
) -> TransformerConfig:
    """The vision tower's TransformerConfig: biases, one query group for each head; Qwen3 LayerNorm and ungated GELU
    (tanh), Qwen2.5 RMSNorm and gated SiLU.

    No pipeline: the tower is whole on the first stage.
    """
    vision, old = config.tower, old_tower(config)
    return TransformerConfig(
        num_layers=vision.depth,
        hidden_size=vision.hidden,
        num_attention_heads=vision.heads,
        ffn_hidden_size=vision.ffn,
        normalization="RMSNorm" if old else "LayerNorm",
        layernorm_epsilon=eps,
        activation_func=silu if old else partial(gelu, approximate="tanh"),
        gated_linear_unit=old,
        add_bias_linear=True,
        add_qkv_bias=True,
        tensor_model_parallel_size=topology.tp,
        **_plain(dtype),
    )


def projection_config(config: ModelConfig, topology: Topology) -> TransformerConfig:
    """Qwen2.5-VL's projection into the language model, an ungated MLP with bias."""
    return TransformerConfig(
        num_layers=config.text.layers,
        hidden_size=config.tower.out_hidden,
        num_attention_heads=config.text.heads,
        ffn_hidden_size=config.tower.merged,
        activation_func=gelu,
        add_bias_linear=True,
        tensor_model_parallel_size=topology.tp,
        **_plain(torch.bfloat16),
    )


def language_spec(config: TransformerConfig, spec: Spec, stage: int | None = None) -> Any:
    """The language decoder's layers of this rank's pipeline stage and chunk."""
    if config.experimental_attention_variant:
        assert spec == "te", "megatron-core knows hybrids of Transformer Engine's modules only"
        return hybrids.block(config, stage)
    return gpt_layer_specs.get_gpt_decoder_block_spec(
        config, use_transformer_engine=spec == "te", normalization="RMSNorm", vp_stage=stage
    )


def vision_spec(spec: Spec) -> Any:
    """A vision block."""
    return (
        vit_layer_specs.get_vit_layer_with_transformer_engine_spec()
        if spec == "te"
        else vit_layer_specs.get_vit_layer_with_local_spec()
    )


def merger_modules(spec: Spec) -> tuple[type, type, type]:
    """A merger's (norm, fc1, fc2)."""
    return (
        (te.Norm, te.ColumnLinear, te.RowLinear)
        if spec == "te"
        else (WrappedTorchNorm, ColumnParallelLinear, RowParallelLinear)
    )
