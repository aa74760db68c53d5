"""An adapter that lies alone, and the model that it changes: opened together as one side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from ...adapters.merged import Merged
from ...adapters.peft.opened import PeftSide
from ...errors import MismatchError, shown_path
from ...formats import is_mcore
from ...formats.directory.locate import one_or_more
from ...formats.seen_files import SeenFiles
from ...models.shared.config import ModelConfig
from ...models.shared.hf_dialects import ExpertsForm
from ...options import McoreSource
from ..hf_side import HfReading, HfSide, open_hf_side
from ..hub_source import hf_directory
from ..mcore_side import McoreSide, open_mcore_side
from .adapter_side import AdapterFiles, AdapterSide, open_adapter_side
from .peft_side import PeftAdapter, read_peft

Apart = TypeVar("Apart", AdapterSide, PeftAdapter)


def open_merged(
    alone: AdapterFiles, base: str | Path, asked: McoreSource, experts_form: ExpertsForm | None = None
) -> tuple[AdapterSide, HfSide | McoreSide]:
    """Open the base, and read the adapter of a Megatron checkpoint with its config.

    Args:
        alone: the adapter's files.
        base: a Hugging Face directory, a hub id, or a Megatron checkpoint.
        asked: how the adapter is read and, but for iteration and layout, the base.
        experts_form: of a Hugging Face base, where its shapes cannot show it.

    Returns:
        the adapter, and the base with it: tensors that it changes are read merged, in their own dtypes.

    Raises:
        MismatchError: the base has an adapter of its own, or the adapter does not fit it.
        VlconvError: of every kind that errors.py names for a source.
    """

    def read(config: ModelConfig) -> AdapterSide:
        return open_adapter_side(alone, config, asked.layout)

    return _merged(alone.files, read, base, asked, experts_form)


def open_merged_peft(
    alone: PeftSide, base: str | Path, asked: McoreSource, experts_form: ExpertsForm | None = None
) -> tuple[PeftAdapter, HfSide | McoreSide]:
    """The same of a PEFT directory."""
    return _merged(alone.files, lambda config: read_peft(alone, config), base, asked, experts_form)


def _merged(
    files: SeenFiles,
    read: Callable[[ModelConfig], Apart],
    base: str | Path,
    asked: McoreSource,
    experts_form: ExpertsForm | None,
) -> tuple[Apart, HfSide | McoreSide]:
    """See `open_merged`; `files` are the adapter's, and `read` reads it."""
    directory = hf_directory(base)
    if one_or_more(is_mcore)(directory):
        side = open_mcore_side(directory, replace(asked, iteration=None, layout=None, lora_alpha=None))
        if side.adapter:
            raise MismatchError(
                f"{shown_path(side.directory)} holds an adapter of its own beside its weights",
                "Merge that one first: vlconv mcore2hf without --base.",
            )
        found = read(side.whole)
        return found, replace(side, adapter=found.adapter, apart=found, files=files.joined(side.files))
    mtp = None if asked.mtp == "carry" else asked.mtp
    model = open_hf_side(directory, HfReading(experts_form, mtp, no_output_layer=asked.no_output_layer))
    found = read(model.config)
    reader = Merged(model.reader, found.adapter)
    return found, replace(model, reader=reader, adapter=found, files=files.joined(model.files))
