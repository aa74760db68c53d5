"""Models that are meant to have no output layer: embedding models, whose config.json says untied all the same.

Their config.json is that of any other model of their kind. So a missing output layer is what it looks like, a loss,
unless the user says otherwise or files lie beside it that only embedding models have.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import shown
from ..formats.open_files import is_file

MARKS = ("modules.json", "config_sentence_transformers.json")
"""Files of Sentence Transformers, with which embedding models are used."""


def why_without(directory: Path | None, asked: bool) -> str:
    """Why a model may have no output layer, in words; "" where nothing says that.

    Args:
        directory: with its config.json; None: there is none.
        asked: --no-output-layer.
    """
    if asked:
        return "--no-output-layer"
    mark = next((mark for mark in MARKS if directory is not None and is_file(directory / mark)), None)
    return f"{shown(mark)} beside config.json" if mark else ""
