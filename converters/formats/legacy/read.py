"""torch: Megatron's legacy checkpoint, read. One torch.save file per rank, each with its own part of the model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...tensors.sharding import Split, Topology, whole_shape
from ...tensors.spec import TensorSpec
from ...tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from ..opened import Opened
from .held.agreement import check_places, check_statements, equal_seeds
from .held.ends import HEADS
from .ranks import NAME, Rank, all_ranks, explain, numbers_of, rank_files
from .saved import Saved, read_saved
from .shards import Shards, global_shards
from .whole import assemble, shapes_of


def open_legacy(directory: Path) -> Opened:
    """Open a legacy checkpoint: read every rank's data.pkl; no tensor is read.

    Raises:
        CorruptError: damaged, a set of rank directories that no topology explains, or ranks that contradict each other.
        UnsupportedError: tensors that are no plain floats.
        ReadError: the system does not let them be read.
    """
    files = rank_files(directory)
    saved = {numbers: read_saved(path) for numbers, path in files.items()}
    args = check_statements(directory, list(saved.values()))
    topology = explain(directory, files, args, _second_is_ep(saved))
    ranks = {rank: saved[numbers_of(rank, topology)] for rank in all_ranks(topology)}
    check_places(directory, ranks, topology)
    shards, ignored = global_shards(ranks)
    warnings = equal_seeds(ranks)
    tied = args.get("untie_embeddings_and_output_weights") is False
    return Opened(
        format=NAME,
        directory=directory,
        specs=_specs(shards, topology),
        assemble=lambda splits: assemble(shards, splits, topology, tied, warnings),
        whole=lambda splits: shapes_of(shards, splits, topology),
        ignored=dict(ignored),
        form=_words(topology, ranks),
        args=lambda: args,
        tied_copy=topology.pp > 1,
        warnings=warnings,
        topology=replace(topology, vpp=len(next(iter(ranks.values())).chunks)),
        unclaimed={str(Path(s.path).relative_to(directory)): s.unclaimed for s in saved.values() if s.unclaimed},
    )


def _second_is_ep(saved: Mapping[tuple[int, ...], Saved]) -> bool:
    """Whether directories with two numbers count expert ranks: then every one has an embedding.

    So may the two stages of a pipeline that ends with a multi-token-prediction head, which only the last one has.
    """
    names = [[name for chunk in s.chunks for name in chunk] for s in saved.values()]
    heads = {any(HEADS in name for name in listed) for listed in names}
    return len(heads) == 1 and all(any(name.endswith(EMBEDDING) for name in listed) for listed in names)


def _specs(shards: Shards, topology: Topology) -> dict[str, TensorSpec]:
    """Names with a rank's own shapes, but for vocabulary rows and experts."""
    specs = {}
    for name, listed in shards.items():
        shape = listed[0].tensor.shape
        if name.endswith((*EMBEDDING, *OUTPUT_LAYER)):
            shape = whole_shape(shape, Split(axis=0), topology.tp)
        experts = [s.expert for s in listed if s.expert is not None]
        specs[name] = TensorSpec(name, (max(experts) + 1, *shape) if experts else shape, listed[0].tensor.dtype)
    return specs


def _words(topology: Topology, ranks: Mapping[Rank, Saved]) -> str:
    vpp = len(next(iter(ranks.values())).chunks)
    sizes = (("TP", topology.tp), ("PP", topology.pp), ("VPP", vpp), ("EP", topology.ep))
    return ", ".join(f"{name} {size}" for name, size in sizes) + (f", ETP {topology.etp}" if topology.ep > 1 else "")
