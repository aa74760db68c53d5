"""What tests of vlconv.converters.live ask of ranks. Imports no megatron-core: the test's own process has it, too."""

from __future__ import annotations

from typing import NamedTuple

import torch

from vlconv.converters.live import Topology as LiveTopology
from vlconv.converters.models.shared.config import ModelConfig

from .topology import Spec, Topology

UNIT = 128
"""Megatron-LM's --make-vocab-size-divisible-by."""


class Job(NamedTuple):
    """What the ranks build.

    Attributes:
        config, topology, spec, grouped, padded: as of mcore.model.build.
        layout: as of vlconv.
        bare: whether the language model stands alone; None: as the family has it.
    """

    config: ModelConfig
    topology: Topology
    spec: Spec = "te"
    grouped: bool = False
    padded: bool = False
    layout: str | None = None
    bare: bool | None = None

    @property
    def sizes(self) -> LiveTopology:
        """The topology in vlconv's words."""
        t = self.topology
        return LiveTopology(t.tp, t.pp, t.vpp, t.ep, t.expert_tp, t.first, t.last)

    @property
    def divisor(self) -> int | None:
        """As of vlconv."""
        return UNIT if self.padded else None


class Part(NamedTuple):
    """A part of a Hugging Face tensor that a rank has."""

    name: str
    offsets: tuple[int, ...]
    tensor: torch.Tensor
    replica: bool
