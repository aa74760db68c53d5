"""A Hugging Face directory opened for a comparison, which can tell of two faults that a conversion only refuses.

They are vocabulary padding that was not cut, and a tied model's output layer that is no copy of its embedding.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..formats.sums.replicas import tied_fault
from ..tensors.vocabulary import EMBEDDING
from .absent.union import Union, only
from .hf_side import AS_IT_IS, HfReading, HfSide, hf_side_by_headers


def open_hf_as_it_is(directory: Path, reading: HfReading = AS_IT_IS) -> HfSide:
    """As `open_hf_side`, but that a side may come out `uncut` or `stale`.

    The reader of a stale one has the output layer.

    Args:
        directory, reading: see there.

    Raises:
        VlconvError: of every kind that errors.py names for a source.
    """
    side = hf_side_by_headers(directory, reading._replace(uncut=True))
    if not side.copy:
        return side
    embedding = next(name for name in side.chunks.specs if name.endswith(EMBEDDING))
    with side.files.noting():
        how = tied_fault(side.chunks, embedding, side.copy)
    if not how:
        return side
    return replace(side, copy="", stale=how, reader=Union(side.reader, only(side.chunks, [side.copy])))
