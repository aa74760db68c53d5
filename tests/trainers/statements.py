"""What trainers state of a model beside its weights."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from typing import Any


def tracked(word: str) -> Callable[[dict[str, Any]], dict[str, str]]:
    """A tracker file."""
    return lambda config: {"latest_checkpointed_iteration.txt": word}


def nothing(config: dict[str, Any]) -> dict[str, str]:
    """No file."""
    return {}


def arguments(config: dict[str, Any]) -> dict[str, Any]:
    """What a trainer states of the language model, as Megatron's arguments call it."""
    text = config.get("text_config", config)
    found = {
        "num_layers": text["num_hidden_layers"],
        "hidden_size": text["hidden_size"],
        "ffn_hidden_size": text.get("intermediate_size"),
        "num_attention_heads": text["num_attention_heads"],
        "num_query_groups": text["num_key_value_heads"],
        "rotary_base": text["rope_theta"] if "rope_theta" in text else text["rope_parameters"]["rope_theta"],
        "num_experts": text.get("num_experts"),
        "untie_embeddings_and_output_weights": not config["tie_word_embeddings"],
        "some_later_option": None,
    }
    if "num_experts" in text:
        found |= {"moe_ffn_hidden_size": text["moe_intermediate_size"], "moe_router_topk": text["num_experts_per_tok"]}
    return found | (hybrid_arguments(text) if "linear_num_key_heads" in text else {})


def hybrid_arguments(text: dict[str, Any]) -> dict[str, Any]:
    """The same of a model with Gated DeltaNets."""
    found = {name: text[f"linear_{name}"] for name in ("num_key_heads", "num_value_heads", "key_head_dim")}
    found |= {"value_head_dim": text["linear_value_head_dim"], "conv_kernel_dim": text["linear_conv_kernel_dim"]}
    found = {f"linear_{name}": value for name, value in found.items()} | {
        "experimental_attention_variant": "gated_delta_net",
        "linear_attention_freq": text["full_attention_interval"],
        "attention_output_gate": True,
        "apply_layernorm_1p": True,
        "kv_channels": text["head_dim"],
        "rotary_percent": 0.25,
        "mtp_num_layers": text.get("mtp_num_hidden_layers"),
    }
    if "shared_expert_intermediate_size" in text:
        shared = text["shared_expert_intermediate_size"]
        found |= {"moe_shared_expert_intermediate_size": shared, "moe_shared_expert_gate": True}
    return found


def namespace(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """common.pt as Megatron-LM writes it."""
    return {"args": argparse.Namespace(**arguments(config), **more), "checkpoint_version": 3.0, "iteration": 1}


def swift_files(config: dict[str, Any]) -> dict[str, str]:
    """ms-swift's tracker and args.json."""
    return {
        "latest_checkpointed_iteration.txt": "100",
        "args.json": json.dumps({"model": "somewhere", **arguments(config)}),
    }


def roll_files(config: dict[str, Any]) -> dict[str, str]:
    """ROLL's mca_config.json, with the words of megatron-core's TransformerConfig."""
    found = arguments(config)
    found["num_moe_experts"] = found.pop("num_experts")
    found["tie_embeddings_and_output_weights"] = not found.pop("untie_embeddings_and_output_weights")
    return {"mca_config.json": json.dumps({"hf_model_type": config["model_type"], **found})}
