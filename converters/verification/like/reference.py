"""What a directory is to be like: a Hugging Face model, by its config.json and, where it has some, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...checkpoint.absent.mtp import layers_of, with_layers
from ...checkpoint.hf_side import hf_side_by_headers
from ...config.output_layer import why_without
from ...config.quantization import Quantization
from ...config.reference import find_reference
from ...errors import NotComparable
from ...formats import safetensors
from ...models import Model, ModelConfig, model_for
from ...models.shared.fields import decide_tie
from ...tensors.spec import TensorSpec


@dataclass(frozen=True)
class Like:
    """The reference.

    Attributes:
        directory: with config.json.
        said: how to call it.
        hf_config: its config.json, without quantization_config.
        model, config: what that describes; with a multi-token-prediction head if it has one.
        dtypes: of its tensors, by their names on the Hub; {}: it has no weights here.
        quantization: what its config.json says of FP8 weights; None: they are plain.
        specs: of its files, where it is quantised.
    """

    directory: Path
    said: str
    hf_config: Mapping[str, Any]
    model: Model
    config: ModelConfig
    dtypes: Mapping[str, str]
    quantization: Quantization | None
    specs: Mapping[str, TensorSpec]


def open_like(named: str | Path, revision: str | None) -> Like:
    """Open the reference of --like, whose weights are not read.

    Args:
        named: a Hugging Face directory or a hub id, of which config.json is enough.
        revision: of the hub id.

    Raises:
        VlconvError: of every kind that errors.py names for a reference or a source.
    """
    found = find_reference(named, revision, Path())
    if found is None or found.directory is None:
        raise NotComparable("--like names no reference", "Give a Hugging Face directory or a hub id.")
    directory, hf_config = found.directory, found.config
    if safetensors.holds(directory) and not safetensors.not_there(directory):
        side = hf_side_by_headers(directory)
        dtypes = {name: spec.dtype for name, spec in side.reader.specs.items()}
        config = with_layers(side.config, layers_of(side.reader.specs))
        specs = side.chunks.specs if found.quantization else {}
        return Like(directory, found.said, hf_config, side.model, config, dtypes, found.quantization, specs)
    if found.quantization:
        raise NotComparable(
            "the reference of --like is FP8, and its weights are not here",
            "Give a directory with its weights: which tensors are FP8 is read from their headers.",
        )
    model, without = model_for(hf_config), why_without(directory, False)
    tie = decide_tie(hf_config)
    tie = tie._replace(without=without) if without and not tie.tied else tie
    return Like(directory, found.said, hf_config, model, model.config_of(hf_config, tie), {}, None, {})
