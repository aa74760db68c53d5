"""Ranks' parts of tensors, put together: shapes of whole tensors, and a reader of them.

Tensors stay on disk: an item is a storage inside a rank's file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ...errors import CorruptError, shown, shown_path
from ...tensors.sharding import Split, Topology, whole_shape
from ...tensors.sharding import parts as cut_parts
from ...tensors.spec import Shape, TensorSpec
from ...tensors.vocabulary import EMBEDDING, OUTPUT_LAYER
from ..chunks import Chunk, ChunkReader, Extent, row_major
from ..holes import find_holes
from ..open_files import OpenFiles
from ..sums.replicas import difference, no_copy
from .cut import Cut, cut_of
from .held.copies import check_copies
from .layers import TWO
from .shards import Shard, Shards


def shapes_of(shards: Shards, splits: Mapping[str, Split], topology: Topology) -> dict[str, Shape]:
    """Shapes of whole tensors.

    Raises:
        CorruptError: ranks hold parts of different tensors.
    """
    cut = cut_of(shards, splits, topology)
    return {name: _whole(name, shards[name], split, cut) for name, split in splits.items()}


def assemble(
    shards: Shards, splits: Mapping[str, Split], topology: Topology, tied: bool, warnings: list[str]
) -> ChunkReader:
    """Put ranks' parts together.

    Args:
        shards: all ranks' parts.
        splits: how each wanted tensor is cut.
        topology: of the checkpoint.
        tied: whether the checkpoint itself states that the model is tied.
        warnings: receives what differs among ranks that hold the same.

    Raises:
        CorruptError: a rank's file is a copy of another's, or holds parts of a tensor that is another.
        MismatchError: a tied model's output layer is no copy of its embedding.
    """
    cut = cut_of(shards, splits, topology)
    check_copies(shards, splits, cut)
    _check_tied_copy(shards, splits, tied, warnings)
    _check_untied(shards, splits)
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
            chunks.setdefault(name, []).extend(_placed(shown(name), shard, item, split, place, cut, shape))
    files = OpenFiles()
    return ChunkReader(specs, chunks, items.__getitem__, files, find_holes(items, files))


def _check_tied_copy(shards: Shards, splits: Mapping[str, Split], tied: bool, warnings: list[str]) -> None:
    """An output layer that is not wanted is the last stage's copy of the embedding, and must equal it.

    But for a stage with a multi-token-prediction head: megatron-core uses the copy that the head has, and leaves the
    output layer as it was made.
    """
    copies = next((listed for name, listed in shards.items() if name.endswith(OUTPUT_LAYER) and name not in splits), [])
    embedding = next((listed for name, listed in shards.items() if name.endswith(EMBEDDING)), [])
    for copy in copies:
        original = next((s for s in embedding if s.rank.tp == copy.rank.tp), None)
        how = original and difference(original.path, original.tensor, copy.path, copy.tensor)
        if how and tied and any(s.path == copy.path for s in embedding):
            warnings.append(
                f"the output layer in {copy.folder} is no copy of the embedding, which is used for it: {how}"
            )
        elif how:
            raise no_copy(f"the output layer in {copy.folder}", how)


def _check_untied(shards: Shards, splits: Mapping[str, Split]) -> None:
    """An output layer that is wanted beside the embedding is a tensor of its own."""
    embedding, output = (
        [
            (s.path, s.tensor.data_offset + s.tensor.start)
            for name in splits
            if name.endswith(ends)
            for s in shards[name]
        ]
        for ends in (EMBEDDING, OUTPUT_LAYER)
    )
    if shared := sorted({path for path, _ in set(embedding) & set(output)}):
        raise CorruptError(
            f"{shown_path(shared[0])}: embedding and output layer are the same bytes, and the model is not tied",
            "data.pkl is damaged, or was changed: copy the file again from where it was saved.",
        )


def _distinct(name: str, listed: list[Shard], split: Split, cut: Cut, warnings: list[str]) -> list[tuple[int, Shard]]:
    """One shard of each (part, expert): (number of the part, shard); the others are replicas, which must be equal."""
    chosen: dict[tuple[int, int | None], Shard] = {}
    for shard in listed:
        first = chosen.setdefault((cut.part(split, shard.rank), shard.expert), shard)
        if first is not shard:
            how = difference(first.path, first.tensor, shard.path, shard.tensor)
            if how:
                warnings.append(f"{shown(name)} differs between {first.folder} (taken) and {shard.folder}: {how}")
    return [(part, shard) for (part, _), shard in sorted(chosen.items(), key=lambda kv: (kv[0][0], kv[0][1] or 0))]


def _whole(name: str, listed: list[Shard], split: Split, cut: Cut) -> Shape:
    """Shape of the whole tensor."""
    shapes = {shard.tensor.shape for shard in listed}
    dtypes = {shard.tensor.dtype for shard in listed}
    if len(shapes) > 1 or len(dtypes) > 1:
        raise CorruptError(
            f"{shown(name)}: ranks hold different shapes or dtypes: {shown(sorted(map(list, shapes)))}", TWO
        )
    local = shapes.pop()
    if split.axis is not None and len(local) <= split.axis:
        raise CorruptError(f"{shown(name)} {shown(list(local))}: has too few axes", "The checkpoint is damaged.")
    shape = whole_shape(local, split, cut.ways(split))
    experts = [shard.expert for shard in listed if shard.expert is not None]
    return (max(experts) + 1, *shape) if experts else shape


def _placed(name: str, shard: Shard, item: int, split: Split, place: int, cut: Cut, shape: Shape) -> Iterator[Chunk]:
    """The chunks that a shard is, in the whole tensor."""
    strides = shard.tensor.strides or row_major(shard.tensor.shape)
    one = shape[1:] if shard.expert is not None else shape
    for part in cut_parts(one, split, place, cut.ways(split), name):
        start = shard.tensor.start + (part.local * strides[split.axis] if split.axis is not None else 0)
        if shard.expert is None:
            yield Chunk(part.offsets, part.lengths, item, start, strides)
        else:
            yield Chunk((shard.expert, *part.offsets), (1, *part.lengths), item, start, (0, *strides))
