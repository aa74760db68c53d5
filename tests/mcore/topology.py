"""How a model is spread over ranks, and where one rank stands in it."""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm
from typing import Literal

Spec = Literal["te", "local"]
"""Which modules a layer is made of: Transformer Engine's (stand-ins for them), or megatron-core's own."""

Form = Literal["stacked", "per_layer", "singleton"]
"""How keys are spelled:
layers on an axis (every trainer's default), a key for each layer, or also a key for each expert and each half of a
gated fc1.
"""


@dataclass(frozen=True)
class Topology:
    """Parallel sizes, in Megatron's words. `copies` multiplies the ranks of data parallelism.

    The rest follows from the other sizes.
    """

    tp: int = 1
    pp: int = 1
    vpp: int = 1
    """Model chunks in each pipeline stage."""
    ep: int = 1
    etp: int | None = None
    """Expert tensor parallel size; None: as `tp`."""
    first: int | None = None
    """Layers of the first pipeline stage, where stages are uneven."""
    last: int | None = None
    """Layers of the last pipeline stage, where stages are uneven."""
    layout: str | None = None
    """pipeline_model_parallel_layout: what each model chunk holds, chunk by chunk over all stages.

    E embedding, t layer, L output layer.
    """
    copies: int = 1

    @property
    def expert_tp(self) -> int:
        """Expert tensor parallel size."""
        return self.tp if self.etp is None else self.etp

    @property
    def world(self) -> int:
        """Number of ranks."""
        return self.pp * lcm(self.tp, self.ep * self.expert_tp) * self.copies

    @property
    def padding_unit(self) -> int:
        """Megatron-LM pads the vocabulary to a multiple of this."""
        return 128 * self.tp

    def __str__(self) -> str:
        sizes = {"tp": self.tp, "pp": self.pp, "vpp": self.vpp, "ep": self.ep, "copies": self.copies}
        shown = [f"{name}{size}" for name, size in sizes.items() if size > 1]
        shown += [
            f"{name}{size}"
            for name, size in (("etp", self.etp), ("first", self.first), ("last", self.last))
            if size is not None
        ]
        shown += [self.layout] if self.layout else []
        return "-".join(shown) or "single"


@dataclass(frozen=True)
class Place:
    """A rank's coordinates for slicing weights. The default is the model whole."""

    tp: int = 1
    tp_rank: int = 0
    ep: int = 1
    ep_rank: int = 0
    etp: int = 1
    etp_rank: int = 0
