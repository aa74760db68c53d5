"""fc1 as Megatron-FSDP saves it: in two halves.

With `--swiglu` every `mlp.linear_fc1` is split in `_w` and `_v` on each tensor-parallel rank.

A gated fc1 becomes gate and up. One that is not gated, a Qwen3-VL vision block's, becomes the first half of every
rank's rows, and the second half
of every rank's rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...errors import UnsupportedError, shown
from ...tensors.sharding import Split
from ...tensors.spec import TensorSpec
from ..chunks import Chunk, row_major


def in_order(
    specs: Mapping[str, TensorSpec],
    chunks: Mapping[str, list[Chunk]],
    halved: Iterable[str],
    splits: Mapping[str, Split],
    ranks: object,
) -> dict[str, list[Chunk]]:
    """The chunks of every tensor, those of halves put where they belong.

    Args:
        specs: every tensor.
        chunks: of each; a halved one's as if it were [w; v].
        halved: names of those that came in halves.
        splits: how tensor parallelism cuts each.
        ranks: tensor parallel size of the checkpoint, if it states one.

    Raises:
        UnsupportedError: it states none, or one that cannot be.
    """
    found = dict(chunks)
    for name in halved:
        split = splits.get(name)
        if split is None or split.gated or split.axis is None:
            continue
        if type(ranks) is not int or ranks < 1 or specs[name].shape[0] % (2 * ranks):
            raise UnsupportedError(
                f"{shown(name)} {list(specs[name].shape)} is saved in two halves of each tensor-parallel rank's part, "
                "and the checkpoint's args state "
                f"tensor_model_parallel_size {shown(ranks)}",
                "Save the checkpoint as torch_dist.",
            )
        found[name] = list(_interleaved(chunks[name], specs[name].shape[0] // (2 * ranks), ranks))
    return found


def _interleaved(chunks: Iterable[Chunk], rows: int, ranks: int) -> Iterator[Chunk]:
    """Blocks of `rows` rows, all first halves before all second ones -> a rank's first and second half side by side."""
    for chunk in chunks:
        start, strides = chunk.offsets[0], chunk.strides or row_major(chunk.lengths)
        at, stop = start, start + chunk.lengths[0]
        while at < stop:
            count = min(stop, (at // rows + 1) * rows) - at
            half, rank = divmod(at // rows, ranks)
            offsets = ((2 * rank + half) * rows + at % rows, *chunk.offsets[1:])
            yield Chunk(
                offsets, (count, *chunk.lengths[1:]), chunk.item, chunk.start + (at - start) * strides[0], strides
            )
            at += count
