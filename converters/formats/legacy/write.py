"""torch: Megatron's legacy checkpoint, planned for a chosen topology.

One torch.save file per rank, streamed like any other output.
"""

from __future__ import annotations

from argparse import Namespace
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple

from ...errors import MismatchError
from ...tensors.dtypes import ITEMSIZE
from ...tensors.sharding import Split, Topology, local_shape, parts
from ...tensors.spec import Box, Shape, TensorSpec
from ..output_file import OutFile, Piece
from ..pickles.plain_pickle import StoredTensor, plain_pickle
from ..sums.crc import join
from ..zips.items import saved_parts
from .ranks import FILES, Rank, all_ranks, folder_name, numbers_of


@dataclass(frozen=True, slots=True)
class LegacyModel:
    """What the rank files are made from.

    Attributes:
        specs: canonical tensors.
        splits: how each is cut.
        text: prefix of the language model's `embedding.`, `decoder.` and `output_layer.`.
        extra_state: canonical modules that carry an `_extra_state`; () when the trainer's modules have none.
        sequential: experts in modules of their own (`local_experts`), else grouped.
        tied: with a pipeline, the last stage then holds a copy of the embedding.
        args: what the file states, by Megatron's names.
        iteration: likewise.
    """

    specs: Mapping[str, TensorSpec]
    splits: Mapping[str, Split]
    text: str
    extra_state: Sequence[str]
    sequential: bool
    tied: bool
    args: Mapping[str, Any]
    iteration: int


class _Own(NamedTuple):
    """A rank's own tensor: its shape, and the boxes of canonical tensors that it is made of, in order."""

    name: str
    shape: Shape
    dtype: str
    boxes: tuple[Box, ...]


def plan_legacy(model: LegacyModel, topology: Topology) -> list[OutFile]:
    """The files of a checkpoint directory: one for each rank.

    Raises:
        MismatchError: a size does not divide; says which would do.
    """
    experts = max((spec.shape[0] for name, spec in model.specs.items() if model.splits[name].expert), default=0)
    if experts % topology.ep:
        fitting = ", ".join(str(n) for n in range(1, experts + 1) if experts % n == 0)
        raise MismatchError(
            f"{experts} experts do not divide by expert parallel size {topology.ep}", f"Sizes that would do: {fitting}."
        )
    if topology.ep > 1 and not experts:
        raise MismatchError(f"expert parallel size {topology.ep}, but the model has no experts", "Leave --ep out.")
    if topology.etp not in (1, topology.tp):
        raise MismatchError(
            f"expert tensor parallel size {topology.etp} with tensor parallel size {topology.tp}",
            "Rank directories can tell only --etp 1 and --etp equal to --tp.",
        )
    where = _places(model, topology)
    return [_file(model, topology, rank, where) for rank in all_ranks(topology)]


_HEADS = ("decoder.final_layernorm.", "output_layer.", "mtp.")
"""What the last chunk of the last stage has, behind the language model's prefix."""

Places = Callable[[str], tuple[int, int, str]]


def _places(model: LegacyModel, topology: Topology) -> Places:
    """Canonical name -> (stage, chunk, name there).

    Decoder layers are dealt out and renumbered, the heads are in the last chunk, all else in the first.
    """
    prefix = f"{model.text}decoder.layers."
    count = len({name[len(prefix) :].split(".")[0] for name in model.specs if name.startswith(prefix)})
    layers = {
        i: (stage, chunk, i - span.start)
        for stage, chunks in enumerate(topology.layers(count))
        for chunk, span in enumerate(chunks)
        for i in span
    }

    def place(name: str) -> tuple[int, int, str]:
        if name.startswith(prefix):
            number, _, rest = name[len(prefix) :].partition(".")
            stage, chunk, local = layers[int(number)]
            return stage, chunk, f"{prefix}{local}.{rest}"
        if name.startswith(tuple(f"{model.text}{head}" for head in _HEADS)):
            return topology.pp - 1, topology.vpp - 1, name
        return 0, 0, name

    return place


def _file(model: LegacyModel, topology: Topology, rank: Rank, places: Places) -> OutFile:
    """One rank's file."""
    chunks: list[OrderedDict[str, _Own | str | None]] = [OrderedDict() for _ in range(topology.vpp)]
    for name, spec in model.specs.items():
        stage, chunk, local = places(name)
        if stage == rank.pp:
            chunks[chunk].update((own.name, own) for own in _own(model, topology, rank, spec, local))
    for module in model.extra_state:
        stage, chunk, local = places(f"{module}.")
        if stage == rank.pp:
            chunks[chunk].update(_extra(local.rstrip("."), model, topology))
    if rank.pp == topology.pp - 1:
        chunks[-1].update(_head(model, topology, rank))
    stored = [own for chunk in chunks for own in chunk.values() if isinstance(own, _Own)]
    keys = {id(own): number for number, own in enumerate(stored)}
    states = [OrderedDict((name, _stand_in(value, keys)) for name, value in chunk.items()) for chunk in chunks]
    named = {"model": states[0]} if topology.vpp == 1 else {f"model{i}": state for i, state in enumerate(states)}
    tree = {"args": Namespace(**model.args), "checkpoint_version": 3.0, "iteration": model.iteration, **named}
    return _saved(f"{folder_name(numbers_of(rank, topology))}/{FILES[0]}", plain_pickle(tree), stored)


def _stand_in(value: _Own | str | None, keys: Mapping[int, int]) -> StoredTensor | None:
    """What stands for a value in the pickle; every empty extra state shares the last storage."""
    if isinstance(value, _Own):
        return StoredTensor(value.shape, value.dtype, keys[id(value)])
    return StoredTensor((0,), "uint8", len(keys)) if value is not None else None


def _head(model: LegacyModel, topology: Topology, rank: Rank) -> Iterator[tuple[str, _Own | None]]:
    """What the last stage has besides: copies of the embedding, and the output layer's empty extra state.

    A tied model has one as its output layer; a multi-token-prediction head looks tokens up in one. Where both are,
    megatron-core still makes room for the former, though it then uses the latter as the output layer, too.
    """
    embedding = f"{model.text}embedding.word_embeddings.weight"
    copies = [f"{model.text}output_layer.weight"] if model.tied else []
    if any(name.startswith(f"{model.text}mtp.") for name in model.specs):
        copies.append(embedding)
    for name in copies if topology.pp > 1 else []:
        yield from ((own.name, own) for own in _own(model, topology, rank, model.specs[embedding], name))
    if model.extra_state:
        yield f"{model.text}output_layer._extra_state", None


def _own(model: LegacyModel, topology: Topology, rank: Rank, spec: TensorSpec, local: str) -> Iterator[_Own]:
    """A rank's part of one canonical tensor; one for each of its experts."""
    split = model.splits[spec.name]
    if not split.expert:
        cut = list(parts(spec.shape, split, rank.tp, topology.tp, spec.name))
        yield _Own(
            local,
            local_shape(spec.shape, split, topology.tp),
            spec.dtype,
            tuple(Box(spec.name, p.offsets, p.lengths) for p in cut),
        )
        return
    each, one = spec.shape[0] // topology.ep, spec.shape[1:]
    cut = list(parts(one, split, topology.expert_tensor_rank(rank.tp), topology.etp, spec.name))
    for e in range(each):
        boxes = tuple(Box(spec.name, (rank.ep * each + e, *p.offsets), (1, *p.lengths)) for p in cut)
        yield _Own(_expert_name(local, e, model.sequential), local_shape(one, split, topology.etp), spec.dtype, boxes)


def _expert_name(name: str, number: int, sequential: bool) -> str:
    if sequential:
        return name.replace(".experts.experts.", f".experts.local_experts.{number}.")
    return name.replace(".experts.experts.", ".experts.") + str(number)


def _extra(module: str, model: LegacyModel, topology: Topology) -> Iterator[tuple[str, str]]:
    """`_extra_state` entries of a module; attention has one more for its core."""
    if ".experts.experts." in module and model.sequential:
        experts = next(spec.shape[0] for name, spec in model.specs.items() if model.splits[name].expert)
        for e in range(experts // topology.ep):
            yield f"{module.replace('.experts.experts.', f'.experts.local_experts.{e}.')}._extra_state", "empty"
        return
    yield f"{module.replace('.experts.experts.', '.experts.')}._extra_state", "empty"
    if module.endswith(".self_attention.linear_qkv"):
        yield f"{module.removesuffix('linear_qkv')}core_attention._extra_state", "empty"


def _saved(name: str, data: bytes, stored: Sequence[_Own]) -> OutFile:
    sizes = [ITEMSIZE[own.dtype] * prod(own.shape) for own in stored]
    saved = saved_parts(data, [*sizes, 0])  # the last is every empty extra state
    pieces: list[Piece] = []
    counts: list[list[int]] = []
    for own, offset in zip(stored, saved.offsets[:-1], strict=True):
        counts.append([])
        for box in own.boxes:
            nbytes = box.size * ITEMSIZE[own.dtype]
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
