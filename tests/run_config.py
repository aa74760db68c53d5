"""run_config.yaml, as Megatron-Bridge leaves it beside a checkpoint."""

from __future__ import annotations

from typing import Any

import yaml
from tiny import IDS


def vision_and_ids(config: dict[str, Any]) -> dict[str, Any]:
    """What Megatron's own arguments never say."""
    vision = {"vision_config": config["vision_config"]} if "vision_config" in config else {}
    return vision | {name: token for name, token in IDS.items() if name.endswith("_id")}


def hybrid(config: dict[str, Any]) -> dict[str, Any]:
    """What it says of a model with Gated DeltaNets, and of the rope of any."""
    text = config.get("text_config", config)
    rope = {**(text.get("rope_scaling") or {}), **text, **text.get("rope_parameters", {})}
    said = {"rotary_base": rope["rope_theta"]}
    if "mrope_section" in rope:
        said["mrope_section"] = rope["mrope_section"]
    if "linear_num_key_heads" not in text:
        return said
    names = ("num_key_heads", "num_value_heads", "key_head_dim", "value_head_dim", "conv_kernel_dim")
    kinds = text.get("layer_types") or ["linear_attention"] * 3 + ["full_attention"]
    return {
        **said,
        **{f"linear_{name}": text[f"linear_{name}"] for name in names},
        "linear_attention_freq": [int(kind == "linear_attention") for kind in kinds],
        "experimental_attention_variant": "gated_delta_net",
        "attention_output_gate": True,
        "layernorm_zero_centered_gamma": True,
        "rotary_percent": rope["partial_rotary_factor"],
        "mtp_num_layers": text.get("mtp_num_hidden_layers"),
        "moe_shared_expert_intermediate_size": text.get("shared_expert_intermediate_size"),
    }


def run_config(config: dict[str, Any]) -> str:
    """The file that states a model of this config.json."""
    text = config.get("text_config", config)
    model = {
        "num_attention_heads": text["num_attention_heads"],
        "num_query_groups": text["num_key_value_heads"],
        "vocab_size": text["vocab_size"],
        "layernorm_epsilon": text["rms_norm_eps"],
        **hybrid(config),
        **(
            {"num_moe_experts": text["num_experts"], "moe_router_topk": text["num_experts_per_tok"]}
            if "num_experts" in text
            else {}
        ),
        **vision_and_ids(config),
    }
    return yaml.safe_dump({"model": model, "train": {"lr": 1}})
