"""A rank's file that is a copy of another rank's: the slip of a copy script. Everything in it reads, and is wrong.

A copy has the keys of its original, and under each the same numbers, which mean another part of the model. Of hundreds
of ranks hardly any two are ever compared: the first tensor in which they differ tells them apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import prod
from typing import NamedTuple

from ....errors import CorruptError
from ....tensors.dtypes import ITEMSIZE
from ....tensors.sharding import Split
from ....tensors.spec import Shape
from ...sums.replicas import checksum, stored_checksum
from ..cut import Cut
from ..ranks import Rank
from ..shards import Shard, Shards

MANY = 3
"""Experts that are all alike from so many on were made of one another, as sparse upcycling does."""

Key = tuple[int, str]
Held = Mapping[Key, tuple[str, Shard]]
"""What a rank holds: key in its file -> canonical, global name and the shard."""


def check_copies(shards: Shards, splits: Mapping[str, Split], cut: Cut) -> None:
    """No two ranks hold, under the same keys, equal numbers that mean different parts of the model.

    Args:
        shards: all ranks' parts.
        splits: how each wanted tensor is cut.
        cut: among how many ranks.

    Raises:
        CorruptError: all that must differ between two ranks is equal, byte by byte; names both.
    """
    known = _Known(shards, splits, cut)
    for bucket in _of_same_keys(shards, splits):
        keys = sorted(bucket[0], key=lambda key: known.order(*bucket[0][key]))
        for group in _suspects(bucket, keys, known):
            meanings = [[known.meaning(*held[key]) for key in keys] for held in group]
            for (one, ours), (other, theirs) in combinations(zip(group, meanings, strict=True), 2):
                if ours != theirs and _copied(one, other, keys, known):
                    folders = " and ".join(held[keys[0]][1].folder for held in (one, other))
                    raise CorruptError(
                        f"{folders} hold the same numbers where they should have different parts of the model",
                        "One is a copy of the other: copy each rank's own file again from where it was saved.",
                    )


class _Meaning(NamedTuple):
    """Which part of which tensor the numbers of a shard are."""

    name: str
    part: int
    expert: int | None


class _Known:
    """What is known of shards, each thing found out once."""

    def __init__(self, shards: Shards, splits: Mapping[str, Split], cut: Cut) -> None:
        self._shards, self._splits, self._cut = shards, splits, cut
        self._sums: dict[tuple[str, Key], tuple[Shape, str, int]] = {}
        self._alike: dict[tuple[str, int], bool] = {}

    def meaning(self, name: str, shard: Shard) -> _Meaning:
        """What its numbers are."""
        return _Meaning(name, self._cut.part(self._splits[name], shard.rank), shard.expert)

    def numbers(self, shard: Shard) -> tuple[Shape, str, int]:
        """Shape, dtype and CRC-32 of its numbers, which are read where the file does not state it."""
        found = self._sums.get((shard.path, shard.key))
        if found is None:
            tensor = shard.tensor
            found = tensor.shape, tensor.dtype, checksum(shard.path, tensor)
            self._sums[shard.path, shard.key] = found
        return found

    def order(self, name: str, shard: Shard) -> tuple[bool, bool, bool, int]:
        """What is looked at first: whose sum is stored, what differs among most ranks, what is large.

        What is small may be equal by itself, as norms are that nobody trained; but what must be read should be small.
        """
        split, tensor = self._splits[name], shard.tensor
        nbytes = prod(tensor.shape) * ITEMSIZE[tensor.dtype]
        unknown = stored_checksum(tensor) is None
        return unknown, not split.expert, split.axis is None, nbytes if unknown else -nbytes

    def alike(self, name: str, part: int) -> bool:
        """Whether all experts have the same of a tensor, so that equal ones say nothing."""
        if (name, part) not in self._alike:
            fellows = {s.expert: s for s in self._shards[name] if self.meaning(name, s).part == part}
            sums = (self.numbers(shard) for shard in fellows.values())
            first = next(sums)
            self._alike[name, part] = len(fellows) >= MANY and all(other == first for other in sums)
        return self._alike[name, part]


def _of_same_keys(shards: Shards, splits: Mapping[str, Split]) -> list[list[Held]]:
    ranks: dict[Rank, dict[Key, tuple[str, Shard]]] = {}
    for name in splits:
        for shard in shards[name]:
            ranks.setdefault(shard.rank, {})[shard.key] = name, shard
    buckets: dict[frozenset[Key], list[Held]] = {}
    for held in ranks.values():
        buckets.setdefault(frozenset(held), []).append(held)
    return list(buckets.values())


def _suspects(bucket: Sequence[Held], keys: Sequence[Key], known: _Known) -> list[list[Held]]:
    """Groups of ranks that no tensor tells apart; far larger than copies need, where ranks hold the same by right."""
    groups = [list(bucket)]
    for key in keys:
        groups = [part for group in groups if len(group) > 1 for part in _linked(group, key, known)]
    return [group for group in groups if len(group) > 1]


def _linked(group: Sequence[Held], key: Key, known: _Known) -> list[list[Held]]:
    """The ranks of a group, those together that are linked by equal numbers there or by the same part of the model."""
    meanings = [known.meaning(*held[key]) for held in group]
    if len(set(meanings)) == 1:
        return [list(group)]
    leader = list(range(len(group)))

    def lead(at: int) -> int:
        while leader[at] != at:
            at = leader[at]
        return at

    first: dict[object, int] = {}
    for at, (held, meaning) in enumerate(zip(group, meanings, strict=True)):
        for label in (meaning, known.numbers(held[key][1])):
            leader[lead(at)] = lead(first.setdefault(label, at))
    linked: dict[int, list[Held]] = {}
    for at, held in enumerate(group):
        linked.setdefault(lead(at), []).append(held)
    return list(linked.values())


def _copied(one: Held, other: Held, keys: Sequence[Key], known: _Known) -> bool:
    """Whether all that should differ is equal, and some of it says so."""
    telling = False
    for key in keys:
        (name, ours), (named, theirs) = one[key], other[key]
        meaning = known.meaning(name, ours)
        if meaning == known.meaning(named, theirs):
            continue
        if known.numbers(ours) != known.numbers(theirs):
            return False
        telling = telling or meaning.expert is None or not known.alike(name, meaning.part)
    return telling
