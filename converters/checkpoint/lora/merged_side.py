"""An adapter that a checkpoint holds alone, and the model that it changes: opened together as one side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ...adapters.merged import Merged
from ...errors import MismatchError, shown_path
from ...formats import is_mcore
from ...formats.directory.locate import one_or_more
from ...models.shared.hf_dialects import ExpertsForm
from ...options import McoreSource
from ..hf_side import HfSide, open_hf_side
from ..hub_source import hf_directory
from ..mcore_side import McoreSide, open_mcore_side
from .adapter_side import AdapterFiles, AdapterSide, open_adapter_side


def open_merged(
    alone: AdapterFiles, base: str | Path, asked: McoreSource, experts_form: ExpertsForm | None = None
) -> tuple[AdapterSide, HfSide | McoreSide]:
    """Open the base, and read the adapter with its config.

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
    directory = hf_directory(base)
    if one_or_more(is_mcore)(directory):
        side = open_mcore_side(directory, replace(asked, iteration=None, layout=None, lora_alpha=None))
        if side.adapter:
            raise MismatchError(
                f"{shown_path(side.directory)} holds an adapter of its own beside its weights",
                "Merge that one first: vlconv mcore2hf without --base.",
            )
        found = open_adapter_side(alone, side.whole, asked.layout)
        return found, replace(side, adapter=found.adapter, apart=found, files=alone.files.joined(side.files))
    mtp = None if asked.mtp == "carry" else asked.mtp
    model = open_hf_side(directory, experts_form, mtp, no_output_layer=asked.no_output_layer)
    found = open_adapter_side(alone, model.config, asked.layout)
    reader = Merged(model.reader, found.adapter)
    return found, replace(model, reader=reader, adapter=found, files=alone.files.joined(model.files))
