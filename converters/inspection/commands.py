"""The commands to go on with, as they are typed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from shlex import join

from ..formats.directory.contents import is_iteration

A_MODEL = "HF_MODEL"
"""What stands for the directory or hub id of the model that was trained, which only the user knows."""


AN_ALPHA = "ALPHA"
"""What stands for the alpha of the training."""


def of_hf(path: Path, made: bool) -> tuple[str, ...]:
    """Of a Hugging Face directory that converts; `made`: it has a manifest."""
    verify = [_line("verify", path)] if made else []
    return (_line("hf2mcore", path, free_name(path, "mcore")), *verify)


def of_megatron(
    path: Path, iteration: int | None, *, reference: bool, carry: str = "", made: bool = False
) -> tuple[str, ...]:
    """Of a Megatron checkpoint that converts, or that a reference makes convert.

    Args:
        path: as it was given.
        iteration: to be named, where the directory does not say by itself which is meant.
        reference: one has to be given.
        carry: what of it has to go along; "": nothing.
        made: it has a manifest.
    """
    which = ["--iteration", str(iteration)] if iteration is not None else []
    whose = [*(["--reference", A_MODEL] if reference else []), *(["--carry", carry] if carry else [])]
    source = path if iteration is None else f"{path}:{iteration}"
    verify = [_line("verify", source)] if made and not reference else []
    return (_line("mcore2hf", path, free_name(path, "hf"), *which, *whose), *verify)


def of_adapter(path: Path, iteration: int | None, *, base: bool, alpha: bool) -> tuple[str, ...]:
    """Of a checkpoint with an adapter: merged.

    Args:
        path: as it was given.
        iteration: to be named, where the directory does not say by itself which is meant.
        base: the model that it changes has to be given.
        alpha: so has its alpha.
    """
    which = ["--iteration", str(iteration)] if iteration is not None else []
    given = [*(["--base", A_MODEL] if base else []), *(["--lora-alpha", AN_ALPHA] if alpha else [])]
    return (_line("mcore2hf", path, free_name(path, "hf"), *which, *given),)


def of_each(paths: Sequence[Path]) -> tuple[str, ...]:
    """To look at one after the other, where it is not known which is meant."""
    return tuple(_line("inspect", path) for path in paths)


def free_name(path: Path, ending: str) -> str:
    """A name for an output in the working directory, at which there is nothing: "checkpoints-hf"."""
    place = path.absolute()
    name = f"{place.parent.name}-{place.name}" if is_iteration(place) and place.parent.name else place.name
    stem = f"{name or 'model'}-{ending}".lstrip("-")
    taken = (f"{stem}-{number}" if number > 1 else stem for number in range(1, 1000))
    return next((found for found in taken if not os.path.lexists(found)), stem)


def _line(command: str, *words: str | Path) -> str:
    return join(["vlconv", command, *map(_word, words)])


def _word(word: str | Path) -> str:
    """A path that begins with - would be an option."""
    return f"./{word}" if isinstance(word, Path) and str(word).startswith("-") else str(word)
