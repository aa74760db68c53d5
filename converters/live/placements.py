"""Where the elements of one rank's tensors lie in Hugging Face tensors: the table, cut as parallelism cuts it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import sub
from typing import NamedTuple

from ..checkpoint.collector import paused
from ..layouts.shared.splits import splits_of
from ..models.shared.config import ModelConfig
from ..parallel.model_chunk import Held
from ..parallel.rank import Rank, is_first
from ..tensors.rules import Copy
from ..tensors.sharding import Topology
from ..tensors.spec import Box, Shape
from .arrays import Tensor, fitting, seen
from .chunk import chunk_of
from .config import AnyConfig
from .model import LiveModel, live_model
from .table import Table


class Region(NamedTuple):
    """A part of a tensor: `lengths` elements from `offsets` on, per axis."""

    offsets: Shape
    lengths: Shape

    def of(self, tensor: Tensor) -> Tensor:
        """The part, as a view."""
        return seen(tensor, Box("", self.offsets, self.lengths))


class Placement(NamedTuple):
    """A part of a rank's tensor, and where the same elements lie in a Hugging Face tensor.

    Attributes:
        local_box: the part of the rank's tensor.
        hf_name: the Hugging Face tensor.
        hf_box: the part of it; axes of length 1 may stand before those of `local_box`.
        transpose: the last two axes are exchanged.
        replica: another rank before this one holds the same elements, or an earlier stage does (the embedding).
        add: what is added to an element on the way to Hugging Face, in float32 and rounded once.
    """

    local_box: Region
    hf_name: str
    hf_box: Region
    transpose: bool = False
    replica: bool = False
    add: float = 0.0

    def local(self, tensor: Tensor) -> Tensor:
        """The part of the rank's tensor as Hugging Face has it: a view of the shape `hf_box.lengths`."""
        return fitting(self.local_box.of(tensor), self.transpose, len(self.hf_box.lengths))

    def hf(self, tensor: Tensor) -> Tensor:
        """The part of the Hugging Face tensor as the rank has it: a view of the shape `local_box.lengths`."""
        return fitting(self.hf_box.of(tensor), self.transpose, len(self.local_box.lengths))


@paused()
def placements(
    config: AnyConfig | ModelConfig | LiveModel,
    layout: str | None,
    topology: Topology,
    rank: Rank,
    *,
    names: Iterable[str] | None = None,
    make_vocab_size_divisible_by: int | None = None,
) -> dict[str, list[Placement]]:
    """Which elements of each tensor of one model chunk lie where in Hugging Face tensors. No tensor is needed.

    Over all ranks and chunks of a topology, the placements that are no replicas hold every Hugging Face element once.
    Padding rows have none.

    Args:
        config: see `live_model`.
        layout: the trainer's naming; None: "mbridge", or the model's own default.
        topology: the parallel sizes.
        rank: whose, and (`vp`) which of its model chunks; `rank_at` makes one of a global rank.
        names: of the chunk's own parameters (`chunk.state_dict()`), with any prefixes; the result has those names.
            None: names as a model on Transformer Engine has them, without prefixes, experts grouped but where the
            trainer has them in modules of their own.
        make_vocab_size_divisible_by: as the trainer has it: the vocabulary is padded to a multiple of it times TP.

    Returns:
        the rank's tensors by name; of each, its placements: tuples of names and numbers, as json.dumps takes them.

    Raises:
        MismatchError: a topology or rank that cannot be, or names that are not those of this chunk.
    """
    model = live_model(config, layout)
    table = model.table()
    splits = splits_of(table.mcore, model.config, model.layout)
    result: dict[str, list[Placement]] = {}
    for name, held in chunk_of(model, topology, rank, names, make_vocab_size_divisible_by).items():
        replica = held.copy or not is_first(rank, topology, splits[held.of])
        add = 1.0 if held.of in table.less_one else 0.0
        result[name] = [
            Placement(
                local, copy.right.name, Region(copy.right.offsets, copy.right.lengths), copy.transpose, replica, add
            )
            for local, copy in _parts(held, table)
        ]
    return result


def _parts(held: Held, table: Table) -> Iterator[tuple[Region, Copy]]:
    """Each part of a rank's tensor that is one box of a Hugging Face tensor, with that box as a copy's right one."""
    begin = 0
    lead = len(held.boxes[0].lengths) - len(held.shape)  # 1 of an expert's tensor
    for box in held.boxes:
        for copy in table.of_mcore.meeting(box):
            at = list(map(sub, copy.left.offsets, box.offsets))[lead:]
            at[held.axis] += begin
            yield Region(tuple(at), copy.left.lengths[lead:]), copy
        begin += box.lengths[lead + held.axis]
