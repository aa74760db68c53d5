"""The language half of a model, as a text-only run of a VL model saves it, and a layout that it is recognised by.

bare(monkeypatch)                       the layout "half": language_model. alone
half(directory, "vision_model.")        a saved checkpoint without all names that begin so
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from refusing import edit_metadata

from vlconv.converters.layouts import LAYOUTS, Layout
from vlconv.converters.layouts.shared import language

HALF = replace(
    LAYOUTS["mbridge"],
    name="half",
    trainers="a text-only run",
    serves=lambda traits: not traits.tower,
    tower="",
    has=("language_model.",),
    lacks=("vision_model.", "visual."),
    rules=lambda config, rows: language.language(config, rows),
    spellings=language.spellings,
    extra_state=language.extra_state,
    stacks=lambda config: ("layers",),
)


def bare(monkeypatch: pytest.MonkeyPatch, layout: Layout = HALF) -> None:
    """Make the layout one of vlconv's, in front of whatever else knows such names."""
    for name in [name for name, other in LAYOUTS.items() if not other.tower]:
        monkeypatch.delitem(LAYOUTS, name)
    monkeypatch.setitem(LAYOUTS, layout.name, layout)


def half(directory: Path, prefix: str = "vision_model.") -> Path:
    """Take out of a distributed checkpoint's metadata what begins so; its bytes stay."""

    def without(metadata: object) -> None:
        for entries in (metadata.state_dict_metadata, metadata.storage_data):  # type: ignore[attr-defined]
            for key in [key for key in entries if str(getattr(key, "fqn", key)).startswith(prefix)]:
                del entries[key]

    edit_metadata(directory, without)
    return directory
