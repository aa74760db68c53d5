"""torch: Megatron's legacy checkpoint, planned for a chosen topology.

One torch.save file per rank, streamed like any other output.
"""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from ...errors import MismatchError
from ...parallel.model_chunk import Dealt, Held, WholeModel
from ...parallel.rank import Rank as ModelRank
from ...tensors.dtypes import ITEMSIZE
from ...tensors.sharding import Topology
from ..output_file import OutFile, Piece
from ..pickles.plain_pickle import StoredTensor, plain_pickle
from ..sums.crc import join
from ..zips.items import saved_parts
from .ranks import FILES, Rank, all_ranks, folder_name, numbers_of


@dataclass(frozen=True, slots=True)
class LegacyModel:
    """What the rank files are made from.

    Attributes:
        whole: the model, before it is dealt out.
        extra_state: canonical modules that carry an `_extra_state`; () when the trainer's modules have none.
        args: what the file states, by Megatron's names.
        iteration: likewise.
    """

    whole: WholeModel
    extra_state: Sequence[str]
    args: Mapping[str, Any]
    iteration: int


def plan_legacy(model: LegacyModel, topology: Topology) -> list[OutFile]:
    """The files of a checkpoint directory: one for each rank.

    Raises:
        MismatchError: a size does not divide; says which would do.
    """
    dealt = Dealt(model.whole, topology)
    if topology.etp not in (1, topology.tp):
        raise MismatchError(
            f"expert tensor parallel size {topology.etp} with tensor parallel size {topology.tp}",
            "Rank directories can tell only --etp 1 and --etp equal to --tp.",
        )
    return [_file(model, dealt, topology, rank) for rank in all_ranks(topology)]


def _file(model: LegacyModel, dealt: Dealt, topology: Topology, rank: Rank) -> OutFile:
    """One rank's file."""
    chunks: list[OrderedDict[str, Held | str | None]] = [OrderedDict() for _ in range(topology.vpp)]
    etp = topology.expert_tensor_rank(rank.tp)
    for chunk, entries in enumerate(chunks):
        entries.update((held.name, held) for held in dealt.held(ModelRank(*rank, etp, chunk)))
    for module in model.extra_state:
        stage, chunk, local = dealt.place(f"{module}.")
        if stage == rank.pp:
            chunks[chunk].update(_extra(local.rstrip("."), model, topology))
    if rank.pp == topology.pp - 1 and model.extra_state:
        chunks[-1][f"{model.whole.text}output_layer._extra_state"] = None
    stored = [held for chunk in chunks for held in chunk.values() if isinstance(held, Held)]
    keys = {id(held): number for number, held in enumerate(stored)}
    states = [OrderedDict((name, _stand_in(value, keys)) for name, value in chunk.items()) for chunk in chunks]
    named = {"model": states[0]} if topology.vpp == 1 else {f"model{i}": state for i, state in enumerate(states)}
    tree = {"args": Namespace(**model.args), "checkpoint_version": 3.0, "iteration": model.iteration, **named}
    return _saved(f"{folder_name(numbers_of(rank, topology))}/{FILES[0]}", plain_pickle(tree), stored)


def _stand_in(value: Held | str | None, keys: Mapping[int, int]) -> StoredTensor | None:
    """What stands for a value in the pickle; every empty extra state shares the last storage."""
    if isinstance(value, Held):
        return StoredTensor(value.shape, value.dtype, keys[id(value)])
    return StoredTensor((0,), "uint8", len(keys)) if value is not None else None


def _extra(module: str, model: LegacyModel, topology: Topology) -> Iterator[tuple[str, str]]:
    """`_extra_state` entries of a module; attention has one more for its core."""
    if ".experts.experts." in module and model.whole.sequential:
        splits = model.whole.splits
        experts = next(spec.shape[0] for name, spec in model.whole.specs.items() if splits[name].expert)
        for e in range(experts // topology.ep):
            yield f"{module.replace('.experts.experts.', f'.experts.local_experts.{e}.')}._extra_state", "empty"
        return
    yield f"{module.replace('.experts.experts.', '.experts.')}._extra_state", "empty"
    if module.endswith(".self_attention.linear_qkv"):
        yield f"{module.removesuffix('linear_qkv')}core_attention._extra_state", "empty"


def _saved(name: str, data: bytes, stored: Sequence[Held]) -> OutFile:
    sizes = [ITEMSIZE[held.dtype] * prod(held.shape) for held in stored]
    saved = saved_parts(data, [*sizes, 0])  # the last is every empty extra state
    pieces: list[Piece] = []
    counts: list[list[int]] = []
    for held, offset in zip(stored, saved.offsets[:-1], strict=True):
        counts.append([])
        for box in held.boxes:
            nbytes = box.size * ITEMSIZE[held.dtype]
            pieces.append(Piece(box, offset))
            counts[-1].append(nbytes)
            offset += nbytes

    def seal(sums: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        rest = iter(sums)
        yield from saved.literals([*(_joined(rest, sizes) for sizes in counts), 0])

    return OutFile(name, saved.nbytes, pieces, [], seal)


def _joined(sums: Iterator[int], sizes: Sequence[int]) -> int:
    total = 0
    for nbytes in sizes:
        total = join(total, next(sums), nbytes)
    return total
