"""config.json: read as plain JSON, written so that transformers 4.57 and 5 read the same model from it.

Of a model that only transformers 5 knows: as that version and the Hub spell it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CorruptError, shown
from ..formats.directory.own_files import check_own
from ..formats.json_file import read_json
from ..models.shared.fields import Json
from ..models.shared.model import Model
from ..models.shared.traits import Traits


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a Hugging Face directory. Errors as `check_own` and `read_json`."""
    path = directory / "config.json"
    check_own(path)
    return read_json(path)


def text_section(hf_config: Json) -> tuple[Json, str]:
    """The object with the language model's fields, and its path.

    text_config, or the top level of a flat config.
    """
    text = hf_config.get("text_config")
    return (text, "text_config.") if isinstance(text, Mapping) else (hf_config, "")


ROTARY = "partial_rotary_factor"
ROPE = ("rope_scaling", "rope_parameters")
"""The objects that hold what there is to say of a rope: the first in transformers 4, the second in 5."""

LARGEST_THETA = 2**63
"""Models have some millions; what is larger is no number to compute with, or none that Megatron's args can hold."""


def rope_theta(hf_config: Json) -> float:
    """The base of the rotary embedding, wherever the version that wrote the config put it.

    Raises:
        CorruptError: it is nowhere (transformers 4.57 and 5 would then compute different models), or stated twice with
            different values.
    """
    text, path = text_section(hf_config)
    sections = (
        ("", text),
        ("rope_parameters.", text.get("rope_parameters")),
        ("rope_scaling.", text.get("rope_scaling")),
    )
    found: dict[str, float] = {}
    for place, section in sections:
        value = section.get("rope_theta") if isinstance(section, Mapping) else None
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise CorruptError(f"config.json: {path}{place}rope_theta is {shown(value)}, not a number")
        if value is not None and not 0 < value < LARGEST_THETA:
            raise CorruptError(f"config.json: {path}{place}rope_theta is {shown(value)}, not a number above 0")
        if value is not None:
            found[f"{path}{place}rope_theta"] = value
    if not found:
        raise CorruptError(
            f"config.json: {path}rope_theta is missing",
            "Add it: without it different versions of transformers compute different models from the same weights.",
        )
    if len(set(found.values())) > 1:
        said = ", ".join(f"{place} is {shown(value)}" for place, value in found.items())
        raise CorruptError(f"config.json contradicts itself: {said}")
    return found.popitem()[1]


def rope_place(traits: Traits) -> str:
    """The object of the language model's section that says how positions are scaled and split."""
    return "rope_parameters" if traits.rope_parameters else "rope_scaling"


def rope_scaling(hf_config: Json, traits: Traits) -> dict[str, Any]:
    """How positions are scaled and split, without the base: {} where no field says it, so that they are not.

    rope_scaling, or rope_parameters as transformers 5 writes it.

    Raises:
        CorruptError: it is missing from the config of a model with a vision tower, whose positions have three axes; or
            it is no object.
    """
    text, path = text_section(hf_config)
    place = next((name for name in (rope_place(traits), *ROPE) if text.get(name)), rope_place(traits))
    section = text.get(place) or {}
    if not section and traits.tower:
        raise CorruptError(f"config.json: {path}{place} is missing", "It holds mrope_section, which no shape shows.")
    if not isinstance(section, Mapping):
        raise CorruptError(f"config.json: {path}{place} is {shown(section)}, not an object")
    for name in ("type", "rope_type"):
        if not isinstance(section.get(name), str | None):
            raise CorruptError(f"config.json: {path}{place}.{name} is {shown(section[name])}, not a name")
    return {key: value for key, value in section.items() if key != "rope_theta"}


def partial_rotary(hf_config: Json, traits: Traits) -> object:
    """The part of a head that positions rotate, of a model that states it; None where it does not.

    Raises:
        CorruptError: it is stated twice, with different values.
    """
    text, path = text_section(hf_config)
    inside, beside = rope_scaling(hf_config, traits).get(ROTARY), text.get(ROTARY)
    if None not in (inside, beside) and inside != beside:
        raise CorruptError(
            f"config.json contradicts itself: {path}{rope_place(traits)}.{ROTARY} is {shown(inside)}, {path}{ROTARY} "
            f"is {shown(beside)}"
        )
    return beside if inside is None else inside


def config_to_write(reference: Json, model: Model, *, tied: bool, dtype: str) -> dict[str, Any]:
    """The config.json that goes with converted weights.

    Everything the reference says is kept, unknown keys too, but for what the weights decide and what transformers 4.57
    spells otherwise than 5.

    Args:
        reference: the config.json to start from, of either version.
        model: the model it describes.
        tied: whether the weights come without `lm_head.weight`.
        dtype: the weights' dtype, as "bfloat16".
    """
    config: dict[str, Any] = copy.deepcopy(dict(reference))
    nested = isinstance(config.get("text_config"), dict)
    sections = [config, config["text_config"]] if nested else [config]
    text = sections[-1]
    text.update(_rope(config, text, model.traits))
    for name in {"rope_scaling", "rope_theta"} if model.traits.rope_parameters else {"rope_parameters"}:
        text.pop(name, None)
    if "num_local_experts" in text:  # 4.57 knows num_experts only
        text["num_experts"] = text.pop("num_local_experts")
    # 4.57 reads Qwen3-VL's tie in text_config, 5.x at the top.
    for section in sections:
        section["tie_word_embeddings"] = tied
        for key in {"dtype", "torch_dtype"} & section.keys():
            section[key] = dtype
    config.update(architectures=[model.architecture], model_type=model.model_type)
    config["dtype"] = dtype  # where torch_dtype was, it stays beside it: older readers know no other name
    vision = config.get("vision_config")
    if isinstance(vision, dict) and vision.get("model_type") == f"{model.model_type}_vision":
        vision["model_type"] = model.model_type
    return config


def _rope(config: Json, text: Json, traits: Traits) -> dict[str, Any]:
    """The fields of the rope.

    5.x alone reads rope_parameters; 4.57 and 5.x read rope_scaling with an explicit rope_theta.
    """
    theta, scaling, rotary = rope_theta(config), rope_scaling(config, traits), partial_rotary(config, traits)
    if traits.rope_parameters:
        said = scaling if rotary is None else {**scaling, ROTARY: rotary}
        held = text.get("rope_parameters") or {}
        return {"rope_parameters": {**held, **said, "rope_theta": theta}}
    fields: dict[str, Any] = {"rope_theta": theta}
    if "rope_parameters" in text and scaling.pop(ROTARY, None) is not None:
        fields[ROTARY] = rotary  # 4.57 reads it there
    if "rope_parameters" in text and set(scaling) <= {"rope_type"} and scaling.get("rope_type", "default") == "default":
        return {"rope_scaling": None, **fields}  # 4.57 knows an unscaled rope by no object at all
    return {"rope_scaling": _spelled(scaling, traits.plain_rope_type), **fields} if scaling else fields


def _spelled(scaling: dict[str, Any], plain: str) -> dict[str, Any]:
    """A plain mrope spelled as the model's releases spell it; transformers 5 renames Qwen2.5-VL's type on saving."""
    kinds = {scaling.get("type", "default"), scaling.get("rope_type", "default")}
    if plain != "default" and kinds <= {"default", plain} and "mrope_section" in scaling:
        return {"type": plain, "mrope_section": scaling["mrope_section"]}
    return scaling


def config_json(config: Json) -> bytes:
    """A config as the bytes of its file: indent 2, a final newline, keys in the given order."""
    return (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")
