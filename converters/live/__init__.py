"""The tables inside a trainer: tensors converted one by one, and where the elements of every rank's tensors belong.

Nothing here reads or writes a checkpoint but `load_rank`, which reads a Hugging Face directory. Tensors are torch's, on
any device, or numpy's; torch is not imported here. Of what is computed (`Layout.less_one`) the rule is that of the file
commands: in float32, rounded once.

Objects of this package do not change once they are made, so threads may share them.
"""

from __future__ import annotations

from ..parallel.rank import Rank, rank_at
from ..tensors.sharding import Topology
from .convert import convert_tensor, sources_of, to_hf, to_mcore
from .exchange import HfSlice, export_rank, load_rank
from .model import LiveModel, live_model
from .placements import Placement, Region, placements

__all__ = [
    "HfSlice",
    "LiveModel",
    "Placement",
    "Rank",
    "Region",
    "Topology",
    "convert_tensor",
    "export_rank",
    "live_model",
    "load_rank",
    "placements",
    "rank_at",
    "sources_of",
    "to_hf",
    "to_mcore",
]
