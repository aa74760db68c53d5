"""What the ranks of a legacy checkpoint hold, under global names.

Layers are numbered within a model chunk and experts within a rank; both are made global here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ...errors import CorruptError, UnsupportedError, shown, shown_path
from ...tensors.dtypes import FLOATS
from ..keys import fold, ignorable, kind_of_ignored
from ..zips.read import ItemTensor
from .held.ends import check_ends
from .layers import TWO, State, first_layers, renumbered
from .ranks import Rank
from .saved import Saved


class Shard(NamedTuple):
    """One rank's part of one tensor.

    Attributes:
        rank: whose.
        path: the rank's file.
        key: the tensor in it: the number of its model chunk, and its name there.
        tensor: where its numbers lie.
        expert: global number, of an expert's.
    """

    rank: Rank
    path: str
    key: tuple[int, str]
    tensor: ItemTensor
    expert: int | None

    @property
    def folder(self) -> str:
        """The name of the rank's directory."""
        return Path(self.path).parent.name


Shards = Mapping[str, list[Shard]]
"""Canonical, global name -> all ranks' parts."""


def global_shards(ranks: Mapping[Rank, Saved]) -> tuple[Shards, Counter[str]]:
    """All ranks' parts of every tensor; and what was ignored, by kind.

    Raises:
        CorruptError: layers are missing, ranks disagree on their number, or stages lie in each other's folders.
        UnsupportedError: a tensor that is no plain float.
    """
    if len({len(saved.chunks) for saved in ranks.values()}) > 1:
        raise CorruptError("ranks have different numbers of model chunks", TWO)
    states = [
        State(rank.pp, chunk, saved.path, state)
        for rank, saved in ranks.items()
        for chunk, state in enumerate(saved.chunks)
    ]
    check_ends(states)
    starts = first_layers(states)
    shards: dict[str, list[Shard]] = {}
    ignored: Counter[str] = Counter()
    spelled: dict[tuple[str, int | None, int, Rank], str] = {}
    experts = _experts(ranks)
    for rank, saved in ranks.items():
        for chunk, state in enumerate(saved.chunks):
            for key, tensor in state.items():
                if kind := kind_of_ignored(key):
                    ignored[kind] += 1
                    continue
                if tensor.dtype not in FLOATS:
                    raise UnsupportedError(
                        f"{shown_path(saved.path)}: {shown(key)} has dtype {shown(tensor.dtype)}",
                        "Only plain, unquantised floating-point weights are converted.",
                    )
                how = fold(key)
                name = renumbered(how.name, starts, rank.pp, chunk)
                expert = None if how.expert is None else rank.ep * experts + how.expert
                shards.setdefault(name, []).append(Shard(rank, saved.path, (chunk, key), tensor, expert))
                first = spelled.setdefault((name, expert, chunk, rank), key)
                if first != key:
                    raise CorruptError(
                        f"{shown_path(saved.path)}: {shown(first)} and {shown(key)} are two names of one tensor",
                        "The file was put together from two checkpoints, or is damaged.",
                    )
    return shards, ignored


def _experts(ranks: Mapping[Rank, Saved]) -> int:
    """Experts of one rank."""
    numbers = [
        how.expert
        for saved in ranks.values()
        for chunk in saved.chunks
        for key in chunk
        if not ignorable(key) and (how := fold(key)).expert is not None
    ]
    return max((n for n in numbers if n is not None), default=-1) + 1
