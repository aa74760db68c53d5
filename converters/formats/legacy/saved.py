"""One rank's file of a legacy checkpoint, read: its model chunks, and what it states of itself. No tensor is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CorruptError, SourceError, naming, shown, shown_path
from ..keys import ignorable, is_number
from ..pickles.closed_unpickler import TensorRef
from ..pickles.sandbox import Plain, plain_dict
from ..zips.read import ItemTensor
from ..zips.torch_save import References, SavedObject, read_torch_save
from .held.views import View, check_apart, view

Chunk = dict[str, ItemTensor]
"""The state dict of a model chunk: name -> tensor; what is none has the dtype "none"."""


class Saved(NamedTuple):
    """A rank's file.

    Attributes:
        path: of the file.
        chunks: of the model.
        args: Megatron's; {} where it states none.
        iteration: where it states one.
        random: states of the generator that Megatron seeds by tensor and pipeline rank; of several data-parallel ranks.
        unclaimed: bytes of storages that nothing in the file refers to.
    """

    path: str
    chunks: list[Chunk]
    args: dict[str, Any]
    iteration: object
    random: list[ItemTensor]
    unclaimed: int

    @property
    def folder(self) -> str:
        """The name of the rank's directory."""
        return Path(self.path).parent.name


def read_saved(path: Path) -> Saved:
    """Read a rank's file.

    Raises:
        CorruptError: damaged, hostile, or no Megatron checkpoint.
        ReadError: the system does not let it be read.
    """
    saved = read_torch_save(path)
    tree = saved.tree
    if not isinstance(tree, dict):
        raise CorruptError(
            f"{shown_path(path)}: holds no dict of a Megatron checkpoint", "The file is damaged or of another program."
        )
    names = _chunk_names(tree)
    if not names or [n for n in names if not isinstance(tree[n], dict)]:
        raise CorruptError(
            f"{shown_path(path)}: holds no model",
            "Is this a legacy Megatron checkpoint? Expected a key 'model', or 'model0', 'model1', ….",
        )
    chunks = [_tensors(path, saved, tree[name]) for name in names]
    found = saved.references()
    _check_apart(path, found, dict(zip(names, chunks, strict=True)))
    args, iteration = plain_dict(tree.get("args")), tree.get("iteration")
    return Saved(str(path), chunks, args, iteration, list(_random(saved, tree)), saved.unclaimed(found))


def _chunk_names(tree: Mapping[Any, Any]) -> list[str]:
    if "model" in tree:
        return ["model"]
    numbered = (k for k in tree if isinstance(k, str) and k.startswith("model") and is_number(k[5:]))
    return sorted(numbered, key=lambda k: int(k[5:]))


def _tensors(path: Path, saved: SavedObject, state: Mapping[Any, Any]) -> Chunk:
    """The tensors of a state dict; nested dicts (older Megatron) are joined with dots."""
    found: Chunk = {}
    for name, value in state.items():
        if isinstance(value, dict):
            here = {f"{name}.{inner}": tensor for inner, tensor in _tensors(path, saved, value).items()}
        elif isinstance(value, TensorRef):
            with naming(f"{shown(path)}: {shown(name)}"):
                here = {str(name): saved.tensor(value)}
        else:
            here = {str(name): ItemTensor("none", (), 0, 0, None)}  # None, or bytes, of an _extra_state
        if twice := found.keys() & here.keys():
            raise CorruptError(
                f"{shown(path)}: holds {shown(min(twice))} twice", "The file is damaged, or was changed."
            )
        found |= here
    return found


def _check_apart(path: Path, found: References, chunks: Mapping[str, Chunk]) -> None:
    """The model's weights share no byte with another tensor of the file."""
    weights = {f"{chunk}.{name}" for chunk, state in chunks.items() for name in state if not ignorable(name)}
    storages: dict[str, list[View]] = {}
    for name, ref in found.tensors:
        storages.setdefault(ref.key, []).append(view(name, name in weights, ref))
    for key, views in storages.items():
        check_apart(shown_path(path), key, views)


def _random(saved: SavedObject, tree: Mapping[Any, Any]) -> Iterator[ItemTensor]:
    """The states of `model-parallel-rng`; before 2022 they stood in the file's own dict."""
    listed: Plain = tree.get("rng_state", tree)
    for state in listed if isinstance(listed, (list, tuple)) else [listed]:
        trackers = state.get("rng_tracker_states") if isinstance(state, dict) else None
        ref = trackers.get("model-parallel-rng") if isinstance(trackers, dict) else None
        if isinstance(ref, TensorRef):
            with suppress(SourceError):  # nobody reads it but to compare
                yield saved.tensor(ref)
