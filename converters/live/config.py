"""A model's config as trainers have it: an object of transformers, a dict, or a path."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ..config.hf_config import read_config
from ..errors import MismatchError, shown
from ..formats.directory.contents import CONFIG
from ..models import model_for
from ..models.shared.config import ModelConfig


@runtime_checkable
class HfConfig(Protocol):
    """A config object of transformers."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, those of its sections too."""


AnyConfig = HfConfig | Mapping[str, Any] | str | PathLike[str]
"""What a model's config may be given as; of a path, the directory of a config.json, or that file."""


def model_config(config: AnyConfig | ModelConfig) -> ModelConfig:
    """The integers of a model.

    Args:
        config: of transformers 4 or 5; nested for a model with a vision tower, else flat.

    Raises:
        MismatchError: it is nothing of the kind.
        CorruptError, UnsupportedError: it is incomplete, or of a model that is not converted.
    """
    if isinstance(config, ModelConfig):
        return config
    if isinstance(config, str | PathLike):
        path = Path(config)
        return model_config(read_config(path.parent if path.name == CONFIG else path))
    if isinstance(config, HfConfig) and not isinstance(config, type):
        config = config.to_dict()
    if not isinstance(config, Mapping):
        raise MismatchError(
            f"a config is a transformers config, a dict or a path, not {shown(type(config).__name__)}",
            "Give the whole model's config, as AutoConfig.from_pretrained returns it.",
        )
    return model_for(config).config(config)
