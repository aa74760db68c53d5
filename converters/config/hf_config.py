"""config.json: read as plain JSON, written so that transformers 4.57 and 5 read the same model from it."""

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


def read_config(directory: Path) -> dict[str, Any]:
    """The config.json of a Hugging Face directory. Errors as `check_own` and `read_json`."""
    path = directory / "config.json"
    check_own(path)
    return read_json(path)


def text_section(hf_config: Json) -> tuple[Json, str]:
    """The object with the language model's fields, and its path.

    text_config, or the top level of a flat Qwen2.5-VL config.
    """
    text = hf_config.get("text_config")
    return (text, "text_config.") if isinstance(text, Mapping) else (hf_config, "")


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


def rope_scaling(hf_config: Json) -> dict[str, Any]:
    """How positions are scaled and split, without the base.

    rope_scaling, or rope_parameters as transformers 5 writes it.
    """
    text, path = text_section(hf_config)
    section = text.get("rope_scaling") or text.get("rope_parameters")
    if not isinstance(section, Mapping):
        raise CorruptError(
            f"config.json: {path}rope_scaling is missing", "It holds mrope_section, which no shape shows."
        )
    for name in ("type", "rope_type"):
        if not isinstance(section.get(name), str | None):
            raise CorruptError(f"config.json: {path}rope_scaling.{name} is {shown(section[name])}, not a name")
    return {key: value for key, value in section.items() if key != "rope_theta"}


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
    theta, scaling = rope_theta(config), rope_scaling(config)
    nested = isinstance(config.get("text_config"), dict)
    sections = [config, config["text_config"]] if nested else [config]
    text = sections[-1]
    # 5.x alone reads rope_parameters; 4.57 and 5.x read rope_scaling with an explicit rope_theta.
    text.pop("rope_parameters", None)
    text.update(rope_scaling=_spelled(scaling, model.traits.plain_rope_type), rope_theta=theta)
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


def _spelled(scaling: dict[str, Any], plain: str) -> dict[str, Any]:
    """A plain mrope spelled as the model's releases spell it; transformers 5 renames Qwen2.5-VL's type on saving."""
    kinds = {scaling.get("type", "default"), scaling.get("rope_type", "default")}
    if plain != "default" and kinds <= {"default", plain} and "mrope_section" in scaling:
        return {"type": plain, "mrope_section": scaling["mrope_section"]}
    return scaling


def config_json(config: Json) -> bytes:
    """A config as the bytes of its file: indent 2, a final newline, keys in the given order."""
    return (json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogatepass")
