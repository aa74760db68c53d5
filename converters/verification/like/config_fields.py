"""Fields of config.json that decide what is computed, against those of the reference."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...checkpoint.absent.mtp import with_layers
from ...config.facts import Facts, geometry_facts, runtime_facts
from ...config.hf_config import read_config, rope_scaling, text_section
from ...config.output_layer import why_without
from ...config.quantization import Quantization, split_quantization
from ...errors import CorruptError, SourceError, VlconvError, shown
from ...models import Model, ModelConfig, model_for
from ...models.shared.fields import Tie
from .held import UNREAD, Held, finding
from .reference import Like

COMPUTES = "it loads, and computes another model"
UNFIT = "transformers and vLLM build another model than the tensors are of"
VISION_IDS = "prompts with images go wrong: it is by these ids that images are put into their places"

TOP = {
    "architectures": "vLLM chooses the model's code by it",
    "image_token_id": VISION_IDS,
    "video_token_id": VISION_IDS,
    "vision_start_token_id": VISION_IDS,
    "vision_end_token_id": VISION_IDS,
}
TEXT = {
    "hidden_act": COMPUTES,
    "norm_topk_prob": COMPUTES,
    "attention_bias": COMPUTES,
    "use_sliding_window": COMPUTES,
    "sliding_window": COMPUTES,
    "max_position_embeddings": "prompts may be as long as it says",
    "eos_token_id": "generation may not end where it should, unless generation_config.json says better",
}
NOTES = ("max_position_embeddings", "eos_token_id", "sliding_window")
"""Fields of which another value may be meant."""


class Described(NamedTuple):
    """What the directory's config.json says.

    Attributes:
        hf_config: the document, without quantization_config; {}: it cannot be read.
        model, config: what it describes; None: nothing that is known.
        quantization: what it says of FP8 weights; None: nothing.
    """

    hf_config: Mapping[str, Any] = {}
    model: Model | None = None
    config: ModelConfig | None = None
    quantization: Quantization | None = None


def read_described(held: Held, directory: Path) -> Described:
    """Read config.json; what is wrong with it is a finding."""
    try:
        hf_config = read_config(directory)
    except SourceError as error:
        held.wrong("config", error.what, f"{UNREAD}: there is no model without its config.json")
        return Described()
    try:
        hf_config, quantization = split_quantization(hf_config)
        model = model_for(hf_config)
        tie = Tie(False, "") if why_without(directory, False) else None
        config = model.config_of(hf_config, tie) if tie else model.config(hf_config, False)
    except VlconvError as error:
        held.wrong("config", error.what, error.hint or "nothing can be said of what it would load")
        return Described(hf_config)
    return Described(hf_config, model, config, quantization)


def tell_config(held: Held, ours: Described, like: Like) -> None:
    """Fields that are not those of the reference; where config.json describes a known model."""
    if ours.model is None or ours.config is None:
        return
    if ours.model.model_type != like.model.model_type:
        held.wrong(
            "config",
            f"config.json describes a {ours.model.model_type}, the reference is a {like.model.model_type}",
            UNFIT,
        )
        return
    _tell_facts(held, _geometry(ours.hf_config, ours.config), _geometry(like.hf_config, like.config), UNFIT)
    try:
        mine = runtime_facts(ours.hf_config, ours.config)
    except CorruptError as error:
        held.wrong("config", error.what, error.hint)
    else:
        _tell_facts(held, mine, runtime_facts(like.hf_config, like.config), COMPUTES)
        scalings = (rope_scaling(ours.hf_config, ours.model.traits), rope_scaling(like.hf_config, like.model.traits))
        mrope = [scaling.get("mrope_interleaved", False) for scaling in scalings]
        if mrope[0] != mrope[1]:
            _tell(held, "mrope_interleaved", mrope[0], mrope[1], COMPUTES)
    for section, fields in ((lambda c: c, TOP), (lambda c: text_section(c)[0], TEXT)):
        mine_, theirs = section(ours.hf_config), section(like.hf_config)
        for name, load in fields.items():
            if name in mine_ or name in theirs:
                _tell(held, name, mine_.get(name), theirs.get(name), load)


def _geometry(hf_config: Mapping[str, Any], config: ModelConfig) -> Facts:
    """Of the head another finding tells."""
    return geometry_facts(hf_config, with_layers(config, 0))


def _tell_facts(held: Held, ours: Facts, theirs: Facts, load: str) -> None:
    for name, fact in theirs.items():
        if name != "tied":  # which has a finding of its own
            found = ours.get(name)
            _tell(held, fact.place, found.value if found else None, fact.value, load)


def _tell(held: Held, place: str, found: object, known: object, load: str) -> None:
    if found == known:
        return
    severity = "note" if place in NOTES else "wrong"
    said = "is not there" if found is None else f"is {shown(found, 80)}"
    what = f"{shown(place)} of config.json {said}, {shown(known, 80)} in the reference"
    held.findings.append(finding(severity, "config", what, load, []))
