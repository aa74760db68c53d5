"""What a checkpoint that we write says of its own model: Megatron-LM's `args`.

With --use-checkpoint-args Megatron-LM takes them for the trainer's own. None says nothing: the trainer's word stands.
"""

from __future__ import annotations

from typing import Any

from ..models import model_of
from ..models.shared.config import ModelConfig, TextConfig
from ..models.shared.fields import Json
from ..models.shared.traits import Traits
from ..tensors.dtypes import TorchDtype
from ..tensors.sharding import Topology
from .facts import runtime_facts
from .hf_config import text_section
from .kinds import is_number


def args_to_write(
    hf_config: Json,
    config: ModelConfig,
    topology: Topology,
    *,
    rows: int,
    divisor: int | None,
    dtype: str,
    grouped_experts: bool,
) -> dict[str, Any]:
    """Megatron-LM's args that describe a model, its topology and the form of its files.

    Args:
        hf_config: the model's config.json.
        config: its integers.
        topology: the parallel sizes.
        rows: of the embedding, padding included.
        divisor: make_vocab_size_divisible_by.
        dtype: of the weights, as "bfloat16". torch's own stands in the args as a TorchDtype.
        grouped_experts: the experts of a layer are in one module.
    """
    facts = {name: fact.value for name, fact in runtime_facts(hf_config, config).items()}
    text, model = text_section(hf_config)[0], model_of(config)
    traits = model.traits
    sizes = {"vocab_size": config.text.vocab, "padded_vocab_size": rows, "make_vocab_size_divisible_by": divisor or 1}
    files = {
        "params_dtype": TorchDtype(dtype),
        "tokenizer_type": "HuggingFaceTokenizer",
        "ckpt_format": "torch",
    }
    experts: dict[str, Any] = {"num_experts": None}
    if config.text.experts:
        # Where releases have no such field, it is always so.
        normalised = text.get("norm_topk_prob", "norm_topk_prob" not in model.family.text) is True
        experts = _experts(config.text, facts, text, grouped_experts, normalised)
        experts |= _experts_beside(config.text, traits)
    layers = _layers(config.text, traits, facts, text) | hybrid_args(config.text, traits)
    norms = {"apply_layernorm_1p": True} if traits.zero_centred_norms else {}
    rope = _rope(facts, text, "mrope" if config.vision else "rope")
    return layers | norms | sizes | experts | rope | files | _sizes(topology)


def _layers(c: TextConfig, traits: Traits, facts: dict[str, Any], text: Json) -> dict[str, Any]:
    """What a decoder layer is made of, all of it said: Megatron-LM's defaults are LayerNorm, biases, GELU.

    Dropout of 0.1.

    The Hugging Face model has no dropout but that of attention.
    """
    return {
        "num_layers": c.layers,
        "hidden_size": c.hidden,
        "num_attention_heads": c.heads,
        "group_query_attention": True,
        "num_query_groups": c.groups,
        "kv_channels": c.head_dim,
        "ffn_hidden_size": c.ffn or None,
        "untie_embeddings_and_output_weights": not c.tied,
        "normalization": "RMSNorm",
        "norm_epsilon": facts["rms_norm_eps"],
        "qk_layernorm": traits.qk_norm,
        "add_bias_linear": False,
        "add_qkv_bias": traits.qkv_bias,
        "swiglu": True if text.get("hidden_act") == "silu" else None,
        "attention_dropout": _number(text.get("attention_dropout")),
        "hidden_dropout": 0.0,
    }


def hybrid_args(c: TextConfig, traits: Traits) -> dict[str, Any]:
    """Of a model with Gated DeltaNets, with a gate on attention, with a multi-token-prediction head: of each its own.

    Under the names that Megatron-LM's args and megatron-core's TransformerConfig share.
    """
    args: dict[str, Any] = {"attention_output_gate": True} if traits.gated_attention else {}
    if traits.linear_attention:
        args |= {
            "experimental_attention_variant": "gated_delta_net",
            "linear_attention_freq": [int(c.is_linear(layer)) for layer in range(c.layers)],
            "linear_conv_kernel_dim": c.kernel,
            "linear_key_head_dim": c.key_dim,
            "linear_value_head_dim": c.value_dim,
            "linear_num_key_heads": c.key_heads,
            "linear_num_value_heads": c.value_heads,
        }
    return args | ({"mtp_num_layers": c.mtp or None} if traits.mtp else {})


def _rope(facts: dict[str, Any], text: Json, kind: str) -> dict[str, Any]:
    """Positions: `kind` of them, "rope" or "mrope". A rope that is scaled in some way has no word among these."""
    return {
        "max_position_embeddings": _number(text.get("max_position_embeddings")),
        "position_embedding_type": kind if facts["rope_type"] == "default" else None,
        "add_position_embedding": True,
        "use_rotary_position_embeddings": False,  # the older word for position_embedding_type "rope", and stronger
        "mrope_section": facts.get("mrope_section"),
        "rotary_base": int(facts["rope_theta"]),
        "rotary_percent": facts.get("partial_rotary", _number(text.get("partial_rotary_factor", 1.0))),
        "rotary_interleaved": False,
    }


def _number(value: object) -> int | float | None:
    """A number; of anything else nothing is said."""
    return value if is_number(value) else None


def _experts_beside(c: TextConfig, traits: Traits) -> dict[str, Any]:
    """The expert that all tokens pass, with a gate of its own."""
    if not traits.shared_expert:
        return {}
    return {"moe_shared_expert_intermediate_size": c.shared_ffn, "moe_shared_expert_gate": True}


def _experts(c: TextConfig, facts: dict[str, Any], text: Json, grouped: bool, normalised: bool) -> dict[str, Any]:
    """Of a model that has some; `normalised`: the weights of the chosen ones are brought to a sum of 1."""
    return {
        "num_experts": c.experts,
        "moe_ffn_hidden_size": c.moe_ffn,
        "moe_layer_freq": [int(c.is_moe(i)) for i in range(c.layers)] if c.dense_layers else 1,
        "moe_router_topk": facts["experts_per_token"],
        # Softmax over the chosen experts is softmax over all of them, brought to a sum of 1.
        "moe_router_pre_softmax": False if normalised else None,
        "moe_grouped_gemm": grouped,
    }


def _sizes(topology: Topology) -> dict[str, Any]:
    """How the files are cut."""
    return {
        "tensor_model_parallel_size": topology.tp,
        "pipeline_model_parallel_size": topology.pp,
        "virtual_pipeline_model_parallel_size": topology.vpp if topology.vpp > 1 else None,
        "expert_model_parallel_size": topology.ep,
        "expert_tensor_parallel_size": topology.etp,
        "decoder_first_pipeline_num_layers": topology.first,
        "decoder_last_pipeline_num_layers": topology.last,
    }
