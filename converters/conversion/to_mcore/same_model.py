"""An iteration joins iterations of the same model only: what the save directory's own config.json describes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from ...config.hf_config import read_config
from ...errors import SourceError, TargetError, shown_path
from ...formats.directory.contents import CONFIG, HF_FILES, is_save_directory
from ...models import model_for, model_of
from ...models.shared.config import ModelConfig, TextConfig, VisionConfig, hf_path
from ...models.shared.fields import Json

LISTED = 3


def check_same_model(target: Path, config: ModelConfig) -> None:
    """Refuse a save directory whose `huggingface/config.json` describes another model; without one nothing is said.

    Raises:
        TargetError: it does, or it describes none that can be told; names the fields that differ.
    """
    directory = target / HF_FILES
    if not is_save_directory(target) or not (directory / CONFIG).is_file():
        return
    try:
        theirs = _model(read_config(directory), config)
    except SourceError as fault:
        raise TargetError(
            f"{shown_path(directory)} is of no model like this one: {fault.what}", "Name another target."
        ) from fault
    different = list(_differences(theirs, config))
    if different:
        more = f" and {len(different) - LISTED} more" if len(different) > LISTED else ""
        raise TargetError(
            f"{shown_path(target)} is the save directory of another model: {', '.join(different[:LISTED])}{more}",
            "Name another target. What is there is described by its huggingface/config.json.",
        )


def _model(hf_config: Json, like: ModelConfig) -> ModelConfig:
    """The model of a config.json, which need not say whether the embeddings are tied."""
    model = model_for(hf_config)
    try:
        return model.config(hf_config)
    except SourceError:
        return model.config(hf_config, like.text.tied)


def _differences(theirs: ModelConfig, ours: ModelConfig) -> Iterator[str]:
    if theirs.model_type != ours.model_type:
        yield f"model_type {theirs.model_type} there, {ours.model_type} here"
        return
    flat = model_of(ours).traits.flat_config
    parts: tuple[tuple[type[TextConfig] | type[VisionConfig], object, object], ...] = (
        (TextConfig, theirs.text, ours.text),
        (VisionConfig, theirs.vision, ours.vision),
    )
    for part, there, here in parts:
        if there is None or here is None:
            if there is not here:
                yield f"{'a' if there else 'no'} vision tower there, {'one' if here else 'none'} here"
            continue
        for field in fields(part):
            a, b = getattr(there, field.name), getattr(here, field.name)
            if a != b:
                yield f"{hf_path(part, field.name, flat=flat)} {_said(a)} there, {_said(b)} here"


def _said(value: object) -> str:
    return str(sorted(value) if isinstance(value, frozenset) else value)
