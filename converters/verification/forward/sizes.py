"""Whether a model fits into memory, in which dtype, and how much of it would."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from shutil import disk_usage
from typing import NamedTuple

from ...errors import NotComparable, shown_path, sized
from ...formats.file_system import kind_of
from ...tensors.dtypes import ITEMSIZE, main_dtype
from ..witnesses.transformers import free_memory
from .hugging_face.run import device_memory
from .hugging_face.way import WAYS
from .model import Model

EXACT = "float32"
"""Sums in it are noise far below what any fault makes of them."""

IN_MEMORY = ("tmpfs", "ramfs")
"""File systems whose files take memory."""


class Fit(NamedTuple):
    """How models are run.

    Attributes:
        dtype: that they are computed in.
        needed: bytes of memory, at most, of one model.
        free: bytes that are to be had.
    """

    dtype: str
    needed: int
    free: int


def fit(models: Sequence[Model], device: str, layers: int, fewer: Callable[[int], Sequence[Model]]) -> Fit:
    """How models are run one after the other.

    Args:
        models: all of them.
        device: "cpu" or "cuda".
        layers: that they have.
        fewer: the same models with so many layers, to say how many would fit.

    Raises:
        NotComparable: they do not fit, or there is no such device.
    """
    free = free_memory()
    if device != "cpu":
        free = min(free, device_memory(device))
    dtypes = [EXACT, *_narrow(models)]
    sizes = {dtype: _needed(models, dtype) for dtype in dtypes}
    for dtype, needed in sizes.items():
        if needed <= free:
            return Fit(dtype, needed, free)
    said = " or ".join(f"{sized(needed)} in {dtype}" for dtype, needed in sizes.items())
    most = _most_layers(lambda count: _needed(fewer(count), dtypes[-1]) <= free, layers)
    where = "memory" if device == "cpu" else "memory of the machine and its GPU"
    raise NotComparable(
        f"to run the model needs {said} of {where}, and {sized(free)} are free",
        f"--layers {most} fits: the first {most} decoder layers are run then." if most else "No part of it fits here.",
    )


def _needed(models: Sequence[Model], dtype: str) -> int:
    place = tempfile.gettempdir()
    copies = kind_of(Path(place).stat().st_dev) in IN_MEMORY
    return max(model.memory(dtype) + copies * model.copied for model in models)


def _narrow(models: Sequence[Model]) -> list[str]:
    """The dtype of 16 bits that most weights of every model have."""
    dtypes = {main_dtype(model.reader.specs) for model in models}
    return [*dtypes] if len(dtypes) == 1 and ITEMSIZE[min(dtypes)] == 2 else []


def _most_layers(fits: Callable[[int], bool], layers: int) -> int:
    """The largest number of layers that fits; 0: none."""
    low, high = 0, layers
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def check_room(models: Sequence[Model], by_megatron: Collection[str]) -> None:
    """There is room for each copy in its turn, and for all logits.

    Args:
        models: the first one is run in each of WAYS.
        by_megatron: names of those that megatron-core runs, too.

    Raises:
        NotComparable: there is not.
    """
    place = tempfile.gettempdir()
    free, copies = disk_usage(place).free, max(model.copied for model in models)
    logits = sum(model.logits * _runs(model, models[0], by_megatron) for model in models)
    if copies + logits > free:
        what = "a copy of the model and the logits need" if copies else "the logits need"
        raise NotComparable(
            f"{what} {sized(copies + logits)} in {shown_path(place)}, and {sized(free)} are free there",
            "Set TMPDIR to a directory with more room" + (", or run less of it with --layers N." if copies else "."),
        )


def _runs(model: Model, first: Model, by_megatron: Collection[str]) -> int:
    """How often its logits are written: megatron-core's are of text alone, and of a hybrid twice."""
    theirs = 2 * (model.name in by_megatron)
    return (len(WAYS) if model is first or theirs else 1) + theirs
