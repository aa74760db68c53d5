"""The way back from canonical names to the keys that Megatron-core loads.

Layers stacked on a leading axis, or one key per layer; a Gated DeltaNet's tensors in pieces.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ...errors import MismatchError, shown
from ...tensors.sharding import begins, sections_of
from ...tensors.spec import TensorSpec
from ..keys import pieces_of

HEADS = "mtp.layers."
"""What stands before a multi-token-prediction head's number. megatron-core never stacks them."""


class Key(NamedTuple):
    """A key to write.

    Attributes:
        name: on disk.
        shape: on disk.
        dtype: of all parts.
        parts: canonical tensors, in order of the leading axis; a single one of the same shape when not stacked.
        stacked: whether there is a leading axis.
        first: of a piece of the parts: the row of them with which it begins; it has as many as `shape` says.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    parts: tuple[str, ...]
    stacked: bool
    first: int = 0


def split(name: str, lists: Sequence[str]) -> tuple[str, int] | None:
    """A canonical name's stacked key and its place on the leading axis: ("a.layers.3.b") -> ("a.layers.b", 3).

    Args:
        name: of a tensor or module.
        lists: module lists, by name or by their whole path.
    """
    if f".{HEADS}" in f".{name}":
        return None
    parts = name.split(".")
    for at, part in enumerate(parts[:-1]):
        if parts[at + 1].isdigit() and (part in lists or ".".join(parts[: at + 1]) in lists):
            return ".".join([*parts[: at + 1], *parts[at + 2 :]]), int(parts[at + 1])
    return None


def stack(specs: Mapping[str, TensorSpec], lists: Sequence[str]) -> list[Key]:
    """Gather canonical tensors into the keys to write.

    Args:
        specs: canonical tensors.
        lists: the module lists to stack; () for one key per layer.

    Raises:
        MismatchError: the layers of a stack differ in shape or dtype.
    """
    grouped: dict[str, dict[int, TensorSpec]] = {}
    keys: list[Key] = []
    for name, spec in specs.items():
        where = split(name, lists)
        if where is None:
            keys.append(Key(name, spec.shape, spec.dtype, (name,), stacked=False))
        else:
            grouped.setdefault(where[0], {})[where[1]] = spec
    return [*keys, *(_stacked(name, layers) for name, layers in grouped.items())]


def _stacked(name: str, layers: dict[int, TensorSpec]) -> Key:
    kinds = {(spec.shape, spec.dtype) for spec in layers.values()}
    if len(kinds) > 1:
        listed = ", ".join(f"{list(shape)} {dtype}" for shape, dtype in sorted(kinds))
        raise MismatchError(
            f"the layers of {shown(name)} differ: {listed}",
            "They cannot be stacked into one key; give --dtype if only their dtypes differ.",
        )
    shape, dtype = kinds.pop()
    return Key(name, (len(layers), *shape), dtype, tuple(layers[i].name for i in sorted(layers)), stacked=True)


def cut_in_pieces(keys: Iterable[Key], sections: Mapping[str, Sequence[int]]) -> Iterator[Key]:
    """The keys, those of tensors that megatron-core saves in pieces cut into these.

    Args:
        keys: to write.
        sections: canonical names of such tensors -> the relative sizes of their pieces, in the order of keys.SECTIONS.

    Raises:
        MismatchError: a tensor has other rows.
    """
    for key in keys:
        relative = sections.get(key.parts[0])
        if relative is None:
            yield key
            continue
        axis = int(key.stacked)
        sizes = sections_of(key.shape[axis], tuple(relative), f"{shown(key.name)} {list(key.shape)}")
        for piece, first, rows in zip(pieces_of(key.name), begins(sizes), sizes, strict=True):
            shape = (*key.shape[:axis], rows, *key.shape[axis + 1 :])
            yield key._replace(name=f"{key.name}.{piece}", shape=shape, first=first)


def same_in_all_layers(specs: Mapping[str, TensorSpec], whole: Iterable[str], lists: Sequence[str]) -> bool:
    """Whether what there is of any module list is of all its layers, and in all of one shape: else nothing stacks.

    Args:
        specs: canonical tensors, such as an adapter's.
        whole: those of the model that they are of.
        lists: the module lists to stack.
    """
    layers: dict[str, set[int]] = {}
    for name in whole:
        where = split(name, lists)
        if where is not None:
            layers.setdefault(name.partition(f".{where[1]}.")[0], set()).add(where[1])
    found: dict[tuple[str, str], dict[int, TensorSpec]] = {}
    for name, spec in specs.items():
        where = split(name, lists)
        if where is not None:
            path, _, rest = name.partition(f".{where[1]}.")
            found.setdefault((path, rest), {})[where[1]] = spec._replace(name="")
    return all(set(there) == layers[path] and len(set(there.values())) == 1 for (path, _), there in found.items())


def alike(names: Iterable[str], lists: Sequence[str]) -> tuple[str, ...]:
    """The whole paths of those lists that have the same tensors in all their layers, which stacking takes for granted.

    Megatron-core decides block by block, too: where the language layers differ, the vision blocks are still stacked.
    """
    layers: dict[str, dict[str, set[int]]] = {}
    for name in names:
        where = split(name, lists)
        if where is not None:
            path, _, rest = name.partition(f".{where[1]}.")
            layers.setdefault(path, {}).setdefault(rest, set()).add(where[1])
    return tuple(
        path
        for path, kinds in layers.items()
        if all(found == set(range(len(max(kinds.values(), key=len)))) for found in kinds.values())
    )
