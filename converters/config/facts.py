"""What config.json says of a model, under one name each: what shapes show too, and what they cannot show."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import CorruptError, shown
from ..models import model_of
from ..models.shared.config import ModelConfig, VisionConfig
from ..models.shared.fields import Fields, Json
from ..models.shared.model import Model
from ..models.shared.traits import Traits
from .hf_config import ROTARY, partial_rotary, rope_place, rope_scaling, rope_theta, text_section
from .kinds import possible, wanted


class Fact(NamedTuple):
    """A value and where it was read: a field of config.json, or a name among Megatron's args."""

    value: Any
    place: str


Facts = dict[str, Fact]

GEOMETRY = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "groups": "num_key_value_heads",
    "head_dim": "head_dim",
    "ffn": "intermediate_size",
    "vocab": "vocab_size",
    "experts": "num_experts",
    "moe_ffn": "moe_intermediate_size",
    "shared_ffn": "shared_expert_intermediate_size",
    "key_heads": "linear_num_key_heads",
    "value_heads": "linear_num_value_heads",
    "key_dim": "linear_key_head_dim",
    "value_dim": "linear_value_head_dim",
    "kernel": "linear_conv_kernel_dim",
    "mtp": "mtp_num_hidden_layers",
}
"""TextConfig's integers and their fields in config.json."""

EXPERTS = ("experts", "moe_ffn")
DELTA_NET = ("key_heads", "value_heads", "key_dim", "value_dim", "kernel")
"""Those of them that only models with experts, or with Gated DeltaNets, have."""

VISION = {
    "depth": "depth",
    "hidden": "hidden_size",
    "heads": "num_heads",
    "ffn": "intermediate_size",
    "out_hidden": "out_hidden_size",
    "patch": "patch_size",
    "channels": "in_channels",
    "temporal_patch": "temporal_patch_size",
    "merge": "spatial_merge_size",
    "positions": "num_position_embeddings",
    "deepstack": "deepstack_visual_indexes",
}
"""VisionConfig's integers and their fields in a vision_config."""

WINDOWS = {"fullatt_block_indexes": "fullatt_block_indexes", "window_size": "window_size"}
"""Which of Qwen2.5-VL's vision blocks see the whole image, and how far the others see, in pixels."""


def needed(model: Model, *, dense_layers: bool) -> list[str]:
    """The facts without which no config.json of a model can be written.

    Args:
        model: the model.
        dense_layers: whether some layers have no experts; of a model with experts.
    """
    traits = model.traits
    names = ["layers", "hidden", "heads", "groups", "head_dim", "vocab", "tied", "rope_theta"]
    names += ["mrope_section"] * traits.tower + ["partial_rotary"] * turns_in_part(model) + ["rms_norm_eps"]
    if traits.experts:
        names += [*EXPERTS, "experts_per_token", "dense_layers"]
    if traits.shared_expert:
        names.append("shared_ffn")
    if traits.linear_attention:
        names += ["linear_layers", *DELTA_NET]
    if dense_layers or not traits.experts:
        names.append("ffn")
    if not traits.tower:
        return names
    vision = [name for name in VISION if name not in ("positions", "deepstack")]
    vision += ["positions"] * traits.position_table + ["deepstack"] * traits.deepstack
    vision += list(WINDOWS) * traits.windows
    return names + [f"vision.{name}" for name in vision]


def turns_in_part(model: Model) -> bool:
    """Whether positions rotate only a part of each head, which config.json then states."""
    return model.family.rotary != 1


def runtime_facts(hf_config: Json, config: ModelConfig) -> Facts:
    """What no shape shows, each with its field in config.json.

    Of the parts that the config describes: without a vision tower where it has none.

    Raises:
        CorruptError: a field without which the model cannot be computed is missing, or of a kind that it cannot have.
    """
    section, path = text_section(hf_config)
    text, model = Fields(section, path.rstrip(".")), model_of(config)
    facts = _rope_facts(hf_config, model, path)
    facts["rms_norm_eps"] = Fact(_required(section, "rms_norm_eps", path), f"{path}rms_norm_eps")
    facts["tied"] = Fact(config.text.tied, "tie_word_embeddings")
    if config.text.experts:
        facts["experts_per_token"] = Fact(
            text.integer("num_experts_per_tok", most=config.text.experts), text.place("num_experts_per_tok")
        )
    if not model.traits.qk_norm:  # then no tensor has the width of a head
        facts["heads"] = Fact(config.text.heads, text.place("num_attention_heads"))
    if config.vision:
        facts |= _vision_facts(hf_config, config.vision, model.traits)
    for name, fact in facts.items():
        if name != "rope_type" and not possible(name, fact.value):
            raise CorruptError(f"config.json: {fact.place} is {shown(fact.value)}, not {wanted(name)}")
    return facts


def _rope_facts(hf_config: Json, model: Model, path: str) -> Facts:
    traits = model.traits
    scaling, place = rope_scaling(hf_config, traits), f"{path}{rope_place(traits)}."
    theta_place = place if traits.rope_parameters else path
    facts = {
        "rope_theta": Fact(rope_theta(hf_config), f"{theta_place}rope_theta"),
        "rope_type": Fact(_rope_type(scaling), f"{place}rope_type"),
    }
    if traits.tower or scaling.get("mrope_section") is not None:
        facts["mrope_section"] = Fact(_required(scaling, "mrope_section", place), f"{place}mrope_section")
    if turns_in_part(model):
        rotary = {ROTARY: partial_rotary(hf_config, traits)}
        facts["partial_rotary"] = Fact(_required(rotary, ROTARY, theta_place), f"{theta_place}{ROTARY}")
    return facts


def _vision_facts(hf_config: Json, vision: VisionConfig, traits: Traits) -> Facts:
    facts = {"vision.heads": Fact(vision.heads, "vision_config.num_heads")}
    if vision.deepstack:
        facts["vision.deepstack"] = Fact(list(vision.deepstack), "vision_config.deepstack_visual_indexes")
    if traits.windows:
        section = Fields(hf_config["vision_config"], "vision_config")
        for name in WINDOWS:
            facts[f"vision.{name}"] = Fact(_required(section.section, name, "vision_config."), section.place(name))
    return facts


def _rope_type(scaling: Json) -> object:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    return "default" if kind == "mrope" else kind


def _required(section: Json, name: str, path: str) -> Any:
    if section.get(name) is None:
        raise CorruptError(
            f"config.json: {path}{name} is missing",
            "Add it: versions of transformers need not agree on what its absence means.",
        )
    return section[name]


def geometry_facts(hf_config: Json, config: ModelConfig) -> Facts:
    """What decides names, shapes and their order, each with its field in config.json.

    The integers of a model, the layers that are not like the others, and two things that its model_type means.
    """
    path = text_section(hf_config)[1]
    text, traits, unused = config.text, model_of(config).traits, _unused(config)
    facts = {name: Fact(getattr(text, name), path + field) for name, field in GEOMETRY.items() if name not in unused}
    if text.experts:
        facts["dense_layers"] = Fact(sorted(text.dense_layers), f"{path}mlp_only_layers")
    facts["linear_layers"] = Fact(sorted(text.linear_layers), f"{path}layer_types")
    facts["gated_attention"] = Fact(traits.gated_attention, f"{path}attn_output_gate")
    facts["zero_centred_norms"] = Fact(traits.zero_centred_norms, "model_type (norms about zero)")
    if config.vision:
        for name, field in VISION.items():
            facts[f"vision.{name}"] = Fact(_listed(getattr(config.vision, name)), f"vision_config.{field}")
    return facts


def _unused(config: ModelConfig) -> set[str]:
    """Integers that describe no tensor of this model."""
    text, traits = config.text, model_of(config).traits
    unused = set() if traits.linear_attention else set(DELTA_NET)
    unused |= set() if traits.mtp else {"mtp"}
    if not text.shared_ffn:
        unused.add("shared_ffn")
    if not text.experts:
        return unused | {"moe_ffn"}
    return unused if text.dense_layers else unused | {"ffn"}


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
