"""What a checkpoint says of its own model.

Megatron-LM's args, a run_config's `model:` section, args.json, mca_config.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isclose
from typing import Any, NamedTuple

from ..errors import shown
from ..models.shared.fields import MOST_LAYERS
from .facts import DELTA_NET, EXPERTS, VISION, WINDOWS, Fact, Facts
from .kinds import settled

NAMES = {
    "layers": ("num_layers",),
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "groups": ("num_query_groups",),
    "head_dim": ("kv_channels",),
    "ffn": ("ffn_hidden_size",),
    "vocab": ("vocab_size",),
    "experts": ("num_experts", "num_moe_experts"),
    "moe_ffn": ("moe_ffn_hidden_size",),
    "rope_theta": ("rotary_base",),
    "mrope_section": ("mrope_section",),
    "rms_norm_eps": ("norm_epsilon", "layernorm_epsilon"),
    "experts_per_token": ("moe_router_topk",),
    "shared_ffn": ("moe_shared_expert_intermediate_size",),
    "key_heads": ("linear_num_key_heads",),
    "value_heads": ("linear_num_value_heads",),
    "key_dim": ("linear_key_head_dim",),
    "value_dim": ("linear_value_head_dim",),
    "kernel": ("linear_conv_kernel_dim",),
    "mtp": ("mtp_num_layers",),
    "partial_rotary": ("rotary_percent",),
}
"""Each fact's names in Megatron-LM's args and in megatron-core's TransformerConfig."""

TIES = {
    "untie_embeddings_and_output_weights": False,
    "share_embeddings_and_output_weights": True,
    "tie_embeddings_and_output_weights": True,
}
"""The tie's names, and which value of each means tied: Megatron-LM's, Megatron-Bridge's, ROLL's."""

SWITCHES = {
    "gated_attention": ("attention_output_gate",),
    "zero_centred_norms": ("layernorm_zero_centered_gamma", "apply_layernorm_1p"),
}
"""What is off unless somebody switches it on: off says nothing, as some trainers have modules of their own instead."""

TRAINERS_OWN = ("mtp",)
"""What a trainer may set otherwise than the model has it: one trains without the multi-token-prediction head."""


class Contradiction(NamedTuple):
    """Two sources that say different things."""

    name: str
    ours: Fact
    theirs: Fact

    def __str__(self) -> str:
        ours, theirs = (f"{fact.place} is {shown(fact.value)}" for fact in (self.ours, self.theirs))
        return f"{ours}, but the checkpoint's {theirs}"


def stated(args: Mapping[str, Any]) -> Facts:
    """What Megatron's args, a run_config's `model:` section, args.json or mca_config.json say.

    None and what is not there says nothing.
    """
    said: Facts = {}
    for name, names in NAMES.items():
        for arg in names:
            value = settled(name, _number(args.get(arg)))
            if value is not None:
                said.setdefault(name, Fact(value, arg))
    for arg, tied in TIES.items():
        if isinstance(args.get(arg), bool):
            said.setdefault("tied", Fact(args[arg] is tied, arg))
    for name, switches in SWITCHES.items():
        on = next((arg for arg in switches if args.get(arg) is True), None)
        if on:
            said[name] = Fact(True, on)
    _drop_defaults(said, args)
    layers = said.get("layers")
    if "experts" in said and (dense := _dense_layers(args.get("moe_layer_freq"), layers)) is not None:
        said["dense_layers"] = Fact(dense, "moe_layer_freq")
    if (linear := _linear_layers(args.get("linear_attention_freq"), layers)) is not None:
        said["linear_layers"] = Fact(linear, "linear_attention_freq")
    if (
        "mrope_section" not in said
        and (section := _number(_section(args, "rope_scaling").get("mrope_section"))) is not None
    ):
        said["mrope_section"] = Fact(section, "rope_scaling.mrope_section")
    vision = _section(args, "vision_config")
    for name, field in {**VISION, **WINDOWS}.items():
        value = settled(f"vision.{name}", _number(vision.get(field)))
        if (
            name in ("patch", "temporal_patch") and isinstance(value, list) and len(set(value)) == 1
        ):  # transformers 5 may spell 16 as [16, 16]
            value = value[0]
        if value is not None:
            said[f"vision.{name}"] = Fact(value, f"vision_config.{field}")
    return said


def _drop_defaults(said: Facts, args: Mapping[str, Any]) -> None:
    """What Megatron-LM fills in for models that do not use it."""
    if args.get("group_query_attention") is False:
        said.pop("groups", None)
    unused: tuple[str, ...] = ()
    if not said.get("experts", Fact(0, "")).value:
        unused += (*EXPERTS, "experts_per_token", "shared_ffn")
    if args.get("linear_attention_freq") is None:
        unused += DELTA_NET
    for name in unused:
        said.pop(name, None)


def _section(args: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A nested configuration.

    Megatron-Bridge writes those of transformers as {"_target_": ..., "config_dict": {...}}.
    """
    section = args.get(name)
    if isinstance(section, Mapping) and isinstance(section.get("config_dict"), Mapping):
        section = section["config_dict"]
    return section if isinstance(section, Mapping) else {}


def _dense_layers(frequency: object, layers: Fact | None) -> list[int] | None:
    """Megatron's moe_layer_freq.

    Every n-th layer from the first on is MoE, or a list with 1 for MoE and 0 for dense.
    """
    if isinstance(frequency, list):
        return [i for i, moe in enumerate(frequency) if moe == 0]
    if type(frequency) is int and frequency > 0 and layers and type(layers.value) is int:
        return [i for i in range(min(layers.value, MOST_LAYERS)) if i % frequency]
    return None


def _linear_layers(frequency: object, layers: Fact | None) -> list[int] | None:
    """Megatron's linear_attention_freq.

    Every n-th layer attends and the others do not, or a list with 1 for linear attention and 0 for attention.
    """
    if isinstance(frequency, list):
        return [i for i, linear in enumerate(frequency) if linear == 1]
    if type(frequency) is int and frequency > 0 and layers and type(layers.value) is int:
        return [i for i in range(min(layers.value, MOST_LAYERS)) if (i + 1) % frequency]
    return None


def _number(value: object) -> Any:
    """An int, a float, or a list of ints; None for anything else. YAML reads 1e-06 as text."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return value
    if isinstance(value, list | tuple):
        return list(value) if all(isinstance(v, int) for v in value) else None
    try:
        return float(value) if isinstance(value, str) else None
    except ValueError:
        return None


def contradictions(facts: Facts, args: Mapping[str, Any]) -> list[Contradiction]:
    """Where config.json and the checkpoint's own words differ, but for what is the trainer's own to set.

    Args:
        facts: of a config.json: `runtime_facts` and `geometry_facts`.
        args: Megatron's args by name, or the `model:` section of a run_config.
    """
    said = stated(args)
    return [
        Contradiction(name, facts[name], said[name])
        for name in facts
        if name in said and name not in TRAINERS_OWN and not same(facts[name].value, said[name].value)
    ]


def same(ours: object, theirs: object) -> bool:
    """Whether two sources say the same: numbers to a millionth, as 1e-06 goes through text."""
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return isclose(ours, theirs, rel_tol=1e-6)
    return ours == theirs
