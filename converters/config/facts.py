"""What config.json says of a model, under one name each: what shapes show too, and what they cannot show."""

from __future__ import annotations

from typing import Any, NamedTuple

from ..errors import CorruptError, shown
from ..models import model_of
from ..models.shared.config import ModelConfig
from ..models.shared.fields import Fields, Json
from ..models.shared.traits import Traits
from .hf_config import rope_scaling, rope_theta, text_section
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
}
"""TextConfig's integers and their fields in config.json."""

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


def needed(traits: Traits, *, dense_layers: bool) -> list[str]:
    """The facts without which no config.json of such a model can be written.

    Args:
        traits: the model's.
        dense_layers: whether some layers have no experts; of a model with experts.
    """
    names = ["layers", "hidden", "heads", "groups", "head_dim", "vocab", "tied"]
    names += ["rope_theta", "mrope_section", "rms_norm_eps"]
    if traits.experts:
        names += ["experts", "moe_ffn", "experts_per_token", "dense_layers"]
    if dense_layers or not traits.experts:
        names.append("ffn")
    vision = [name for name in VISION if name not in ("positions", "deepstack")]
    vision += ["positions"] * traits.position_table + ["deepstack"] * traits.deepstack
    vision += list(WINDOWS) * traits.windows
    return names + [f"vision.{name}" for name in vision]


def runtime_facts(hf_config: Json, config: ModelConfig) -> Facts:
    """What no shape shows, each with its field in config.json.

    Raises:
        CorruptError: a field without which the model cannot be computed is missing, or of a kind that it cannot have.
    """
    section, path = text_section(hf_config)
    text = Fields(section, path.rstrip("."))
    scaling = rope_scaling(hf_config)
    facts = {
        "rope_theta": Fact(rope_theta(hf_config), f"{path}rope_theta"),
        "rope_type": Fact(_rope_type(scaling), f"{path}rope_scaling.rope_type"),
        "mrope_section": Fact(
            _required(scaling, "mrope_section", f"{path}rope_scaling."), f"{path}rope_scaling.mrope_section"
        ),
        "rms_norm_eps": Fact(_required(section, "rms_norm_eps", path), f"{path}rms_norm_eps"),
        "tied": Fact(config.text.tied, "tie_word_embeddings"),
        "vision.heads": Fact(config.vision.heads, "vision_config.num_heads"),
    }
    if config.text.experts:
        facts["experts_per_token"] = Fact(
            text.integer("num_experts_per_tok", most=config.text.experts), text.place("num_experts_per_tok")
        )
    if config.vision.deepstack:
        facts["vision.deepstack"] = Fact(list(config.vision.deepstack), "vision_config.deepstack_visual_indexes")
    traits = model_of(config).traits
    if not traits.qk_norm:  # then no tensor has the width of a head
        facts["heads"] = Fact(config.text.heads, text.place("num_attention_heads"))
    if traits.windows:
        vision = Fields(hf_config["vision_config"], "vision_config")
        for name in WINDOWS:
            facts[f"vision.{name}"] = Fact(_required(vision.section, name, "vision_config."), vision.place(name))
    for name, fact in facts.items():
        if name != "rope_type" and not possible(name, fact.value):
            raise CorruptError(f"config.json: {fact.place} is {shown(fact.value)}, not {wanted(name)}")
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
    """The integers of a model, each with its field in config.json."""
    path = text_section(hf_config)[1]
    text, unused = config.text, _unused(config)
    facts = {name: Fact(getattr(text, name), path + field) for name, field in GEOMETRY.items() if name not in unused}
    if text.experts:
        facts["dense_layers"] = Fact(sorted(text.dense_layers), f"{path}mlp_only_layers")
    return facts | {
        f"vision.{name}": Fact(_listed(getattr(config.vision, name)), f"vision_config.{field}")
        for name, field in VISION.items()
    }


def _unused(config: ModelConfig) -> set[str]:
    """Integers that describe no tensor of this model."""
    if not config.text.experts:
        return {"moe_ffn"}
    return set() if config.text.dense_layers else {"ffn"}


def _listed(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
