"""What a path leads to: a Hugging Face directory, a checkpoint, or a save directory with several of them."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from ..errors import NotACheckpoint, NotComparable, VlconvError
from ..formats import is_mcore, safetensors
from ..formats.directory.contents import CONFIG, HF_FILES
from ..formats.directory.locate import below, iteration_of, locate, tracker_word
from ..formats.open_files import is_dir, is_file
from ..verification.side_path import SidePath, side_path
from .inspection import Iteration

LEVELS = 2
"""Folders below a checkpoint's own whose files count as its files: a rank's folder, and one in it."""


class Place(NamedTuple):
    """Where a checkpoint lies.

    Attributes:
        path: as it was given, without an iteration.
        asked: the iteration that was asked for.
        directory: the checkpoint's own.
        iterations: all that there are; () where the path is the checkpoint's own.
        fault: why a conversion would not find it by itself.
    """

    path: Path
    asked: int | None
    directory: Path
    iterations: tuple[Iteration, ...] = ()
    fault: VlconvError | None = None


def named(spelled: str | PathLike[str], iteration: int | None) -> SidePath:
    """The path and the iteration that a user names.

    Raises:
        NotACheckpoint: there is nothing of that name.
    """
    try:
        found = side_path(spelled)
    except NotComparable as fault:
        raise NotACheckpoint(fault.what, fault.hint) from None
    return found if iteration is None else found._replace(iteration=iteration)


def is_hf(path: Path) -> bool:
    """Whether a directory is a Hugging Face model, with or without its weights."""
    return safetensors.holds(path) or (is_file(path / CONFIG) and not is_mcore(path) and not below(path, is_mcore))


def find(path: Path, iteration: int | None) -> Place:
    """The Megatron checkpoint at a path, and all that lie beside it.

    Of several that a conversion would not choose from, the latest is described.

    Raises:
        NotACheckpoint: there is none, or none of that iteration.
    """
    fault: VlconvError | None = None
    try:
        directory = locate(path, is_mcore, iteration)
        if directory == path:
            return Place(path, iteration, directory)
        there = below(path, is_mcore)
    except NotACheckpoint as error:
        there = below(path, is_mcore) if is_dir(path) and iteration is None else []
        if not there:
            raise
        directory, fault = there[-1], error
    word = tracker_word(path)
    found = tuple(_iteration(path, each, word, each.samefile(directory)) for each in there)
    return Place(path, iteration, directory, found, fault)


def _iteration(path: Path, directory: Path, word: str | None, described: bool) -> Iteration:
    inner = directory.relative_to(path)
    number = iteration_of(directory)
    tracked = word is not None and (word == "release" if number is None else word.isdigit() and int(word) == number)
    return Iteration(str(inner), number, tracked, described)


def file_bytes(directory: Path) -> int:
    """Bytes of all files of a checkpoint or model, without the Hugging Face files beside it."""
    return sum(_sizes(directory, LEVELS))


def _sizes(directory: Path, levels: int) -> list[int]:
    sizes: list[int] = []
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if levels and entry.name != HF_FILES:
                        sizes += _sizes(directory / entry.name, levels - 1)
                elif entry.is_file():
                    sizes.append(entry.stat().st_size)
    except OSError:  # what cannot be looked at is told where it is opened
        return sizes
    return sizes
