"""run_config.yaml, as Megatron-Bridge leaves it beside a checkpoint."""

from __future__ import annotations

from typing import Any

import yaml
from tiny import IDS


def vision_and_ids(config: dict[str, Any]) -> dict[str, Any]:
    """What Megatron's own arguments never say."""
    return {
        "vision_config": config["vision_config"],
        **{name: token for name, token in IDS.items() if name.endswith("_id")},
    }


def run_config(config: dict[str, Any]) -> str:
    """The file that states a model of this config.json."""
    text = config.get("text_config", config)
    model = {
        "num_attention_heads": text["num_attention_heads"],
        "num_query_groups": text["num_key_value_heads"],
        "vocab_size": text["vocab_size"],
        "rotary_base": text["rope_theta"],
        "layernorm_epsilon": text["rms_norm_eps"],
        "mrope_section": text["rope_scaling"]["mrope_section"],
        **(
            {"num_moe_experts": text["num_experts"], "moe_router_topk": text["num_experts_per_tok"]}
            if "num_experts" in text
            else {}
        ),
        **vision_and_ids(config),
    }
    return yaml.safe_dump({"model": model, "train": {"lr": 1}})
