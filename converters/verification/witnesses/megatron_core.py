"""A second reader of a torch_dist checkpoint: megatron-core's own loader.

It unpickles `.metadata`, so it is for checkpoints that one trusts and only on request. Which key holds which canonical
tensor is keys.py's word for both readers; which keys there are, their shapes and dtypes, and every byte, are
megatron-core's.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import NotComparable
from ...formats.chunks import Chunk, dense
from ...formats.keys import Stored, canonical, fold, ignorable
from ...tensors.dtypes import storage
from ...tensors.spec import Box, TensorSpec
from .foreign import quiet, speaking_for

if TYPE_CHECKING:
    import torch
    from torch.distributed.checkpoint.metadata import Metadata

    from ...tensors.spec import Array

LIBRARY = "megatron-core"

_UNREAD = 0xA5
"""What a tensor's bytes are before it is loaded: memory used before may hold the very bytes that should come."""


@contextmanager
def read_by_megatron(directory: Path) -> Iterator[MegatronReader]:
    """A Reader of a torch_dist directory, good inside the context.

    Nothing of it is left in the process afterwards, imports aside.

    Raises:
        NotComparable: megatron-core is missing, or failed.
    """
    with ExitStack() as stack:
        stack.enter_context(quiet())
        with speaking_for(LIBRARY):
            stack.enter_context(_alone())
            stack.enter_context(_metadata_once())
            reader = MegatronReader(directory)
        yield reader


@contextmanager
def _alone() -> Iterator[None]:
    """A process group of this process alone, without which megatron-core loads nothing."""
    import torch.distributed as dist

    if dist.is_initialized():
        raise NotComparable(
            "a torch.distributed process group is there already",
            "The witness makes one of its own: call it in a process without.",
        )
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def _metadata_once() -> Iterator[None]:
    """One `.metadata` for all loads, which unpickle it again for each tensor: seconds of a large checkpoint.

    megatron-core reads through torch's FileSystemReader, whichever of its own readers is asked.
    """
    from torch.distributed.checkpoint.filesystem import FileSystemReader

    original = FileSystemReader.read_metadata
    known: dict[str, Metadata] = {}

    def read_metadata(self: FileSystemReader, *args: Any, **kwargs: Any) -> Metadata:
        path = str(self.path)
        if path not in known:
            known[path] = original(self, *args, **kwargs)
        return known[path]

    FileSystemReader.read_metadata = read_metadata  # type: ignore[method-assign]
    try:
        yield
    finally:
        FileSystemReader.read_metadata = original  # type: ignore[method-assign]


class _Held:
    """A tensor in memory, and how many of its elements nobody has asked for yet."""

    def __init__(self, array: Array) -> None:
        self.array = array
        self.left = array.size


class MegatronReader:
    """A Reader of canonical names through the strategy that `megatron.core.dist_checkpointing.load` calls for tensors.

    `load` itself would also want common.pt, where no weights are: one of another Megatron, with `args` of classes that
    cannot be imported, or none at all, is no reason not to read the rest. Nor is the strategy's way in what changes:
    of `load`, every release from 0.16 to 0.19 has another.

    Loads a whole canonical tensor (one layer of a stacked key) when its first box is asked for, and lets it go when
    each of its elements has been read.

    Raises (while reading):
        NotComparable: megatron-core failed; with its words.
    """

    def __init__(self, directory: Path) -> None:
        from megatron.core.dist_checkpointing import load_tensors_metadata
        from megatron.core.dist_checkpointing.strategies.torch import TorchDistLoadShardedStrategy

        self._strategy = TorchDistLoadShardedStrategy()
        self._directory = directory
        found = load_tensors_metadata(str(directory))
        self._keys = [
            TensorSpec(name, tuple(t.global_shape), str(t.dtype).removeprefix("torch."))
            for name, t in found.items()
            if not ignorable(name)
        ]
        # A chunk of a canonical tensor lies in "item" number i, which here is key number i, from element `start` on.
        self.specs, self._chunks = canonical(Stored(spec, [dense(spec, i)]) for i, spec in enumerate(self._keys))
        self._held: dict[str, _Held] = {}
        self._lock = threading.Lock()

    @property
    def keys(self) -> int:
        """How many keys of the checkpoint hold weights."""
        return len(self._keys)

    def read_into(self, box: Box, out: Array) -> None:
        """See Reader."""
        with self._lock:
            held = self._held.get(box.name)
            if held is None:
                held = self._held[box.name] = _Held(self._load(box.name))
            held.left -= box.size
            if held.left <= 0:
                del self._held[box.name]
        out[...] = held.array[tuple(slice(o, o + n) for o, n in zip(box.offsets, box.lengths, strict=True))]

    def finish(self) -> None:
        """See Reader."""
        self._held.clear()

    def _load(self, name: str) -> Array:
        """All elements of a canonical tensor."""
        import torch

        spec = self.specs[name]
        tensor = torch.empty(spec.shape, dtype=getattr(torch, spec.dtype))
        tensor.view(-1).view(torch.uint8).fill_(_UNREAD)
        with speaking_for(LIBRARY):
            parts = {str(i): self._part(chunk, tensor) for i, chunk in enumerate(self._chunks[name])}
            wanted = {i: part.data for i, part in parts.items()}
            loaded = self._strategy.load(parts, self._directory)
            for i, view in wanted.items():
                view.copy_(loaded[i])  # it is the same memory already, as far as megatron-core loads in place
        bits: Array = tensor.view(getattr(torch, storage(spec.dtype).removeprefix("u"))).numpy()
        return bits.view(storage(spec.dtype))

    def _part(self, chunk: Chunk, tensor: torch.Tensor) -> Any:
        """megatron-core's ShardedTensor for a chunk: a slab of a key, to be loaded into its place in `tensor`."""
        from megatron.core.dist_checkpointing import ShardedTensor

        key = self._keys[chunk.item]
        stacked = fold(key.name).stacked
        shape = (1, *key.shape[1:]) if stacked else key.shape
        offset = (chunk.start // prod(shape) if stacked else 0, *(0 for _ in shape[1:])) if shape else ()
        # A slab of leading rows, so contiguous: megatron-core loads straight into it.
        view = tensor[tuple(slice(o, o + n) for o, n in zip(chunk.offsets, chunk.lengths, strict=True))].view(shape)
        return ShardedTensor(key.name, view, view.dtype, shape, key.shape, offset, axis_fragmentations=None)
