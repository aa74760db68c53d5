"""torch: Megatron's legacy checkpoint, read. One torch.save file per rank, each with the rank's own part of the model.

Layers are numbered within a model chunk and experts within a rank; both are made global here. Tensors stay on disk: an
item is a storage inside the zip.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CorruptError, UnsupportedError, naming, shown
from ...tensors.dtypes import FLOATS
from ...tensors.sharding import Split, Topology, whole_shape
from ...tensors.sharding import parts as cut_parts
from ...tensors.spec import Shape, TensorSpec
from ...tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from ..chunks import Chunk, ChunkReader, Extent, row_major
from ..holes import find_holes
from ..keys import fold, ignorable, kind_of_ignored
from ..open_files import OpenFiles, children
from ..opened import Opened
from ..pickles.closed_unpickler import TensorRef
from ..pickles.sandbox import plain_dict
from ..replicas import difference, no_copy
from ..zips.read import ItemTensor
from ..zips.torch_save import SavedObject, read_torch_save
from .layers import TWO, State, first_layers, renumbered
from .ranks import PREFIX, Rank, all_ranks, explain, folder_name, numbers_of, rank_files

NAME = "torch"


class Shard(NamedTuple):
    """One rank's part of one tensor."""

    rank: Rank
    path: str
    tensor: ItemTensor
    expert: int | None  # global


def holds(directory: Path) -> bool:
    """Whether a directory itself is a legacy checkpoint."""
    return any(child.name.startswith(PREFIX) for child in children(directory))


def open_legacy(directory: Path) -> Opened:
    """Open a legacy checkpoint: read every rank's data.pkl; no tensor is read.

    Raises:
        CorruptError: damaged, or a set of rank directories that no topology explains.
        ReadError: the system does not let them be read.
    """
    files = rank_files(directory)
    saved = {numbers: _chunks(path) for numbers, path in files.items()}
    _check_iterations(directory, saved)
    args = next(iter(saved.values())).args
    topology = explain(directory, files, args, _second_is_ep(saved))
    ranks = {rank: saved[numbers_of(rank, topology)] for rank in all_ranks(topology)}
    shards, ignored = _globalise(ranks)
    warnings: list[str] = []
    return Opened(
        format=NAME,
        directory=directory,
        specs=_specs(shards, topology),
        assemble=lambda splits: _assemble(shards, splits, topology, warnings),
        whole=lambda splits: _shapes(shards, splits, topology),
        ignored=dict(ignored),
        form=_words(topology, ranks),
        args=lambda: args,
        tied_copy=topology.pp > 1,
        warnings=warnings,
    )


class _Saved(NamedTuple):
    """A rank's file: its model chunks, name -> tensor, its args, and its iteration where it states one."""

    path: str
    chunks: list[dict[str, ItemTensor]]
    args: dict[str, Any]
    iteration: object


def _chunks(path: Path) -> _Saved:
    saved = read_torch_save(path)
    tree = saved.tree
    if not isinstance(tree, dict):
        raise CorruptError(
            f"{path}: holds no dict of a Megatron checkpoint", "The file is damaged or of another program."
        )
    names = (
        ["model"]
        if "model" in tree
        else sorted(
            (k for k in tree if isinstance(k, str) and k.startswith("model") and k[5:].isdigit()),
            key=lambda k: int(k[5:]),
        )
    )
    if not names or [n for n in names if not isinstance(tree[n], dict)]:
        raise CorruptError(
            f"{path}: holds no model",
            "Is this a legacy Megatron checkpoint? Expected a key 'model', or 'model0', 'model1', ….",
        )
    return _Saved(
        str(path),
        [_tensors(path, saved, tree[name]) for name in names],
        plain_dict(tree.get("args")),
        tree.get("iteration"),
    )


def _tensors(path: Path, saved: SavedObject, state: Mapping[Any, Any]) -> dict[str, ItemTensor]:
    """The tensors of a state dict; nested dicts (older Megatron) are joined with dots."""
    found: dict[str, ItemTensor] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": tensor for inner, tensor in _tensors(path, saved, value).items()}
        elif isinstance(value, TensorRef):
            with naming(f"{shown(path)}: {shown(name)}"):
                found[str(name)] = saved.tensor(value)
        else:
            found.setdefault(f"{name}", ItemTensor("none", (), 0, 0, None))  # None, or bytes, of an _extra_state
    return found


def _check_iterations(directory: Path, saved: Mapping[tuple[int, ...], _Saved]) -> None:
    """All ranks were saved at the same time."""
    found: dict[str, str] = {}
    for numbers, rank in saved.items():
        found.setdefault(shown(rank.iteration), folder_name(numbers))
    if len(found) > 1:
        listed = ", ".join(f"{folder} at {iteration}" for iteration, folder in list(found.items())[:5])
        raise CorruptError(f"{directory}: ranks were saved at different iterations: {listed}", TWO)


def _second_is_ep(saved: Mapping[tuple[int, ...], _Saved]) -> bool:
    """Whether directories with two numbers count expert ranks: then every one has an embedding."""
    return all(any(n.endswith(EMBEDDING) for chunk in s.chunks for n in chunk) for s in saved.values())


def _globalise(ranks: Mapping[Rank, _Saved]) -> tuple[dict[str, list[Shard]], Counter[str]]:
    """Canonical, global names -> all ranks' parts; and what was ignored, by kind."""
    if len({len(saved.chunks) for saved in ranks.values()}) > 1:
        raise CorruptError("ranks have different numbers of model chunks", TWO)
    starts = first_layers(
        State(rank.pp, chunk, saved.path, state)
        for rank, saved in ranks.items()
        for chunk, state in enumerate(saved.chunks)
    )
    shards: dict[str, list[Shard]] = {}
    ignored: Counter[str] = Counter()
    experts = _experts(ranks)
    for rank, saved in ranks.items():
        for chunk, state in enumerate(saved.chunks):
            for key, tensor in state.items():
                if kind := kind_of_ignored(key):
                    ignored[kind] += 1
                    continue
                if tensor.dtype not in FLOATS:
                    raise UnsupportedError(
                        f"{saved.path}: {shown(key)} has dtype {shown(tensor.dtype)}",
                        "Only plain, unquantised floating-point weights are converted.",
                    )
                how = fold(key)
                name = renumbered(how.name, starts, rank.pp, chunk)
                expert = None if how.expert is None else rank.ep * experts + how.expert
                shards.setdefault(name, []).append(Shard(rank, saved.path, tensor, expert))
    return shards, ignored


def _experts(ranks: Mapping[Rank, _Saved]) -> int:
    """Experts of one rank."""
    numbers = [
        how.expert
        for saved in ranks.values()
        for chunk in saved.chunks
        for key in chunk
        if not ignorable(key) and (how := fold(key)).expert is not None
    ]
    return max((n for n in numbers if n is not None), default=-1) + 1


def _specs(shards: Mapping[str, list[Shard]], topology: Topology) -> dict[str, TensorSpec]:
    """Names with a rank's own shapes, but for vocabulary rows and experts."""
    specs = {}
    for name, listed in shards.items():
        shape = listed[0].tensor.shape
        if name.endswith((*EMBEDDING, *OUTPUT_LAYER)):
            shape = whole_shape(shape, Split(axis=0), topology.tp)
        experts = [s.expert for s in listed if s.expert is not None]
        specs[name] = TensorSpec(name, (max(experts) + 1, *shape) if experts else shape, listed[0].tensor.dtype)
    return specs


def _words(topology: Topology, ranks: Mapping[Rank, _Saved]) -> str:
    vpp = len(next(iter(ranks.values())).chunks)
    sizes = (("TP", topology.tp), ("PP", topology.pp), ("VPP", vpp), ("EP", topology.ep))
    return ", ".join(f"{name} {size}" for name, size in sizes) + (f", ETP {topology.etp}" if topology.ep > 1 else "")


def _shapes(shards: Mapping[str, list[Shard]], splits: Mapping[str, Split], topology: Topology) -> dict[str, Shape]:
    """Shapes of whole tensors."""
    cut = _cut(shards, splits, topology)
    return {name: _whole(name, shards[name], split, cut) for name, split in splits.items()}


class _Cut(NamedTuple):
    """Among how many ranks tensors are cut."""

    topology: Topology
    tower: int  # likewise, in a tower that has a tensor parallel size of its own

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


def _cut(shards: Mapping[str, list[Shard]], splits: Mapping[str, Split], topology: Topology) -> _Cut:
    """By how many ranks a tower is cut.

    Its attention is as wide as the tower, so the square linear_proj shows it.
    """
    names = [
        name for name, split in splits.items() if split.tower and name.endswith("self_attention.linear_proj.weight")
    ]
    ways = {
        rows // columns if columns and rows % columns == 0 else 0
        for name in names
        for rows, columns in (shards[name][0].tensor.shape,)
    }
    tower = ways.pop() if len(ways) == 1 else 0
    return _Cut(topology, tower if tower and topology.tp % tower == 0 else topology.tp)


def _assemble(
    shards: Mapping[str, list[Shard]], splits: Mapping[str, Split], topology: Topology, warnings: list[str]
) -> ChunkReader:
    """Put ranks' parts together."""
    _check_tied_copy(shards, splits)
    cut = _cut(shards, splits, topology)
    items: list[Extent] = []
    numbers: dict[tuple[str, int], int] = {}
    specs: dict[str, TensorSpec] = {}
    chunks: dict[str, list[Chunk]] = {}
    for name, split in splits.items():
        listed = _distinct(name, shards[name], split, cut, warnings)
        shape = _whole(name, [shard for _, shard in listed], split, cut)
        specs[name] = TensorSpec(name, shape, listed[0][1].tensor.dtype)
        for place, shard in listed:
            extent = Extent(shard.path, shard.tensor.data_offset, shard.tensor.nbytes, shard.tensor.crc)
            item = numbers.setdefault((shard.path, extent.offset), len(items))
            if item == len(items):
                items.append(extent)
            chunks.setdefault(name, []).extend(_placed(shard, item, split, place, cut, shape))
    files = OpenFiles()
    return ChunkReader(specs, chunks, items.__getitem__, files, find_holes(items, files))


def _check_tied_copy(shards: Mapping[str, list[Shard]], splits: Mapping[str, Split]) -> None:
    """An output layer that is not wanted is the last stage's copy of the embedding, and must equal it."""
    copies = next((listed for name, listed in shards.items() if name.endswith(OUTPUT_LAYER) and name not in splits), [])
    embedding = next((listed for name, listed in shards.items() if name.endswith(EMBEDDING)), [])
    for copy in copies:
        original = next(s for s in embedding if s.rank.tp == copy.rank.tp)
        how = difference(original.path, original.tensor, copy.path, copy.tensor)
        if how:
            raise no_copy(f"the output layer in {Path(copy.path).parent.name}", how)


def _distinct(name: str, listed: list[Shard], split: Split, cut: _Cut, warnings: list[str]) -> list[tuple[int, Shard]]:
    """One shard of each (part, expert): (number of the part, shard); the others are replicas, which must be equal."""
    chosen: dict[tuple[int, int | None], Shard] = {}
    for shard in listed:
        first = chosen.setdefault((cut.part(split, shard.rank), shard.expert), shard)
        if first is not shard:
            how = difference(first.path, first.tensor, shard.path, shard.tensor)
            if how:
                warnings.append(
                    f"{shown(name)} differs between {Path(first.path).parent.name} (taken) and "
                    f"{Path(shard.path).parent.name}: {how}"
                )
    return [(part, shard) for (part, _), shard in sorted(chosen.items(), key=lambda kv: (kv[0][0], kv[0][1] or 0))]


def _whole(name: str, listed: list[Shard], split: Split, cut: _Cut) -> Shape:
    """Shape of the whole tensor."""
    shapes = {shard.tensor.shape for shard in listed}
    dtypes = {shard.tensor.dtype for shard in listed}
    if len(shapes) > 1 or len(dtypes) > 1:
        raise CorruptError(
            f"{shown(name)}: ranks hold different shapes or dtypes: {', '.join(map(str, map(list, shapes)))}", TWO
        )
    shape = whole_shape(shapes.pop(), split, cut.ways(split))
    experts = [shard.expert for shard in listed if shard.expert is not None]
    return (max(experts) + 1, *shape) if experts else shape


def _placed(shard: Shard, item: int, split: Split, place: int, cut: _Cut, shape: Shape) -> Iterator[Chunk]:
    """The chunks that a shard is, in the whole tensor."""
    strides = shard.tensor.strides or row_major(shard.tensor.shape)
    one = shape[1:] if shard.expert is not None else shape
    for part in cut_parts(one, split, place, cut.ways(split)):
        start = shard.tensor.start + (part.local * strides[split.axis] if split.axis is not None else 0)
        if shard.expert is None:
            yield Chunk(part.offsets, part.lengths, item, start, strides)
        else:
            yield Chunk((shard.expert, *part.offsets), (1, *part.lengths), item, start, (0, *strides))
