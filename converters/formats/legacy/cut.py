"""Among how many ranks each tensor of a legacy checkpoint is cut, and which part a rank has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ...tensors.sharding import Split, Topology
from .ranks import Rank
from .shards import Shards


class Cut(NamedTuple):
    """Among how many ranks tensors are cut.

    Attributes:
        topology: of the language model.
        tower: tensor parallel size of a tower, which may have one of its own.
    """

    topology: Topology
    tower: int

    def ways(self, split: Split) -> int:
        """Number of different parts."""
        if split.axis is None:
            return 1
        if split.tower:
            return self.tower
        return self.topology.etp if split.expert else self.topology.tp

    def part(self, split: Split, rank: Rank) -> int:
        """Which of the parts a rank has. A tower's repeat among the tensor-parallel ranks."""
        if split.axis is None:
            return 0
        if split.tower:
            return rank.tp % self.tower
        return self.topology.expert_tensor_rank(rank.tp) if split.expert else rank.tp


def cut_of(shards: Shards, splits: Mapping[str, Split], topology: Topology) -> Cut:
    """How a checkpoint's tensors are cut.

    Among how many ranks a tower is, its attention shows: it is as wide as the tower, so its linear_proj was square.
    """
    names = [
        name for name, split in splits.items() if split.tower and name.endswith("self_attention.linear_proj.weight")
    ]
    shapes = (shards[name][0].tensor.shape for name in names)
    ways = {s[0] // s[1] if len(s) == 2 and s[1] and s[0] % s[1] == 0 else 0 for s in shapes}
    tower = ways.pop() if len(ways) == 1 else 0
    return Cut(topology, tower if tower and topology.tp % tower == 0 else topology.tp)
