"""Whose config.json a Megatron side is run with: what two sides share shows no difference between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...checkpoint.mcore_side import McoreSide
from ...config.reference import find_reference
from ...formats import is_mcore
from ...formats.directory.locate import locate
from .model import Model


def has_own_config(source: Path, iteration: int | None) -> bool:
    """Whether a config.json lies beside a checkpoint, where trainers put it.

    Args:
        source: the checkpoint's directory or one above it.
        iteration: which of several; None: the latest.

    Raises:
        NotACheckpoint: there is none.
        ReferenceFault, CorruptError: as of `find_reference`.
    """
    return find_reference(None, None, locate(source, is_mcore, iteration)) is not None


def config_from(model: Model) -> Path | None:
    """The directory whose config.json a model is run with; None: it was made of what the checkpoint states."""
    return model.side.known.reference.directory if isinstance(model.side, McoreSide) else model.side.directory


def shared(models: Sequence[Model]) -> bool:
    """Whether two sides are run with one config.json."""
    first, *others = (config_from(model) for model in models)
    return any(first is not None and other is not None and first.resolve() == other.resolve() for other in others)
