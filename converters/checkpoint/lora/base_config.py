"""The config of the model that an adapter changes, where none of that model's weights are needed."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ...config.output_layer import why_without
from ...config.reference import Reference, find_reference
from ...errors import ReferenceFault
from ...models import model_for
from ...models.shared.config import ModelConfig
from ...models.shared.fields import decide_tie


class BaseConfig(NamedTuple):
    """A model as its config.json describes it.

    Attributes:
        config: its integers.
        reference: where the config.json comes from.
    """

    config: ModelConfig
    reference: Reference


def base_config(
    option: str | Path | None, revision: str | None, near: Path, hint: str, named: str = "--reference"
) -> BaseConfig:
    """The config of an adapter's base.

    Args:
        option: a Hugging Face directory, or a hub id, of which only config.json and what goes along is fetched; None:
            looked for.
        revision: of a hub id.
        near: where it is looked for: the checkpoint's directory.
        hint: what to do where there is none.
        named: what names it, where something does.

    Raises:
        ReferenceFault: there is none.
        CorruptError, UnsupportedError: its config.json is damaged, or of a model that is not converted.
    """
    found = find_reference(option, revision, near)
    if found is None:
        raise ReferenceFault("an adapter alone does not say which model it changes", hint)
    model = model_for(found.config)
    tie = decide_tie(found.config, without=why_without(found.directory, False))
    said = found.said.replace("given as --reference", f"given as {named}")
    return BaseConfig(model.config_of(found.config, tie), found._replace(said=said))
