"""Layer numbers of a legacy checkpoint.

Local to a model chunk in the files, made global here by counting the layers that each chunk has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ...errors import CorruptError, shown, shown_path
from ..keys import LISTS, ignorable, is_number

TWO = "Two checkpoints lie in one directory."

Starts = Mapping[tuple[str, int, int], int]
"""(module list, stage, chunk) -> global number of its first layer."""


class State(NamedTuple):
    """The names in one model chunk of one rank's file."""

    stage: int
    chunk: int
    path: str
    names: Iterable[str]


def first_layers(states: Iterable[State]) -> Starts:
    """Chunks are counted in the model's order, chunk by chunk over all stages.

    A tower whose patch embedding is there on a later stage again begins anew: MindSpeed-MM may keep the whole vision
    tower on every stage.

    Raises:
        CorruptError: layers are missing, or ranks of one stage disagree.
    """
    counts: dict[str, dict[tuple[int, int], int]] = {}
    begins: dict[tuple[int, int], set[str]] = {}
    for state in states:
        names = [name for name in state.names if not ignorable(name)]
        begins[state.chunk, state.stage] = {
            f"{name.partition('.patch_embed.')[0]}." for name in names if ".patch_embed." in name
        }
        for path, numbers in _numbered(names).items():
            if numbers != set(range(len(numbers))):
                raise CorruptError(
                    f"{shown_path(state.path)}: {shown(path)} lacks layers: it has {sorted(numbers)[:20]}",
                    "The checkpoint is damaged.",
                )
            known = counts.setdefault(path, {}).setdefault((state.chunk, state.stage), len(numbers))
            if known != len(numbers):
                raise CorruptError(
                    f"{shown_path(state.path)}: {shown(path)} has {len(numbers)} layers, other ranks of its stage "
                    f"{known}",
                    TWO,
                )
    return {
        (path, stage, chunk): first
        for path, by_chunk in counts.items()
        for (chunk, stage), first in _summed(path, by_chunk, begins)
    }


def _summed(
    path: str, counts: Mapping[tuple[int, int], int], begins: Mapping[tuple[int, int], set[str]]
) -> Iterator[tuple[tuple[int, int], int]]:
    """(chunk, stage), the number of its first layer of one list."""
    at = 0
    for where in sorted(counts):
        if path.startswith(tuple(begins[where])):
            at = 0
        yield where, at
        at += counts[where]


def renumbered(name: str, starts: Starts, stage: int, chunk: int) -> str:
    """A name with its layer's global number."""
    where = _list_at(name)
    if where is None:
        return name
    path, at, parts = where
    return ".".join([*parts[:at], str(int(parts[at]) + starts[path, stage, chunk]), *parts[at + 1 :]])


def _list_at(name: str) -> tuple[str, int, list[str]] | None:
    """The module list in a name: (its path, the place of the number, all parts)."""
    parts = name.split(".")
    for at, part in enumerate(parts[:-1]):
        if part in LISTS and is_number(parts[at + 1]):
            return ".".join(parts[: at + 1]), at + 1, parts
    return None


def _numbered(names: Iterable[str]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {}
    for name in names:
        where = _list_at(name)
        if where is not None:
            found.setdefault(where[0], set()).add(int(where[2][where[1]]))
    return found
