"""Megatron's key forms, folded into one: a tensor per layer, experts on a leading axis, gate and up in one tensor.

| on disk                                         | here                                              |
|-------------------------------------------------|---------------------------------------------------|
| decoder.layers.mlp.linear_fc2.weight [L, H, F]  | decoder.layers.{0..L-1}.mlp.linear_fc2.weight     |
| …linear_fc1.weight_w [F, H], …weight_v [F, H]   | …linear_fc1.weight [2F, H]                        |
| …experts.experts.{e}.linear_fc1.weight [2M, H]  | …experts.experts.linear_fc1.weight [E, 2M, H]     |
| …experts.linear_fc1.weight{e} (grouped, legacy) | the same                                          |
| …experts.local_experts.{e}.linear_fc1.weight    | the same                                          |
| …in_proj.weight.query [K, H], .key, .value, …   | …in_proj.weight [2K + 2V + 2nv, H]                |

Whether a block is stacked is read off each key: a list name that no number follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from ..errors import CorruptError, shown
from ..tensors.spec import Shape, TensorSpec
from .chunks import Chunk
from .columns import MOST, ChunkColumns, Moved, columns_of, joined, reaches_outside, rows_apart
from .pieces import TWO_FORMS, Piece, Pieces

LISTS = ("layers", "deepstack_merger_list", "deepstack_norm_list")
"""Module lists that megatron-core's sharded_state_dict may stack."""

_LISTS = frozenset(LISTS)

_HALVES = {f"{kind}_{half}": (kind, half) for kind in ("weight", "bias") for half in "wv"}
"""How the halves of a gated layer's tensors end: what the whole one is called, and which half it is."""

MOST_LAYERS, MOST_TENSORS = 4096, 1 << 18
"""No model has more. A few bytes of metadata can claim any number of them, and all are enumerated."""

_IN_PROJ, _CONV1D = ("query", "key", "value", "z", "beta", "alpha"), ("query", "key", "value")

SECTIONS = {
    "self_attention.in_proj.weight": _IN_PROJ,
    "self_attention.in_proj.bias": _IN_PROJ,
    "self_attention.conv1d.weight": _CONV1D,
    "self_attention.conv1d.bias": _CONV1D,
}
"""How the names of a Gated DeltaNet's tensors end that megatron-core saves in pieces, and their pieces in order."""

_HEADS = {
    "optimizer": "optimizer",
    "chained_": "optimizer",
    "rng_state": "rng_state",
    "rerun_state": "rerun_state",
    "opt_param_scheduler": "scheduler",
    "lr_scheduler": "scheduler",
    "dataloader": "dataloader",
    "common_state": "common state",
    "args": "common state",
    "iteration": "common state",
    "checkpoint_version": "common state",
}
"""How entries begin that are no weights, whatever follows, and what they are."""

_PARTS = {
    "_quantizer": "quantizer state",
    "_amax": "quantizer state",
    "_extra_state": "_extra_state",
    "inv_freq": "inv_freq",
}
"""What is somewhere in the names of other such entries.

Quantisation-aware training leaves the first two beside weights of full precision.
"""


_BEGINNINGS = tuple(_HEADS)


def kind_of_ignored(name: str) -> str:
    """What an entry is that is no weight of a model, in a word for the summary; "" for what may be one."""
    if name.startswith(_BEGINNINGS):
        return next(kind for head, kind in _HEADS.items() if name.startswith(head))
    for part, kind in _PARTS.items():
        if part in name:
            return kind
    return ""


def pieces_of(name: str) -> tuple[str, ...]:
    """The pieces of a canonical tensor, in order; () for one that is never saved in pieces."""
    return SECTIONS.get(".".join(name.split(".")[-3:]), ())


def ignorable(name: str) -> bool:
    """Whether an entry is no weight of a model, however it is called."""
    return bool(kind_of_ignored(name))


class Fold(NamedTuple):
    """How one key on disk lies in canonical tensors."""

    name: str  # canonical; "{}" stands for the layer when stacked
    stacked: bool = False
    expert: int | None = None
    half: str = ""  # "w" gate, "v" up
    piece: str = ""  # of a Gated DeltaNet's tensor; a stranger's may be any


def fold(key: str) -> Fold:
    """Read a key. Pure text, no shapes."""
    parts = key.split(".")
    half = piece = ""
    if ".".join(parts[-4:-1]) in SECTIONS:
        piece = parts.pop()
    if parts[-1] in _HALVES:
        parts[-1], half = _HALVES[parts[-1]]
    expert = None
    if "experts" in parts:
        parts, expert, half = _expert(parts, half)
    stacked = False
    if not _LISTS.isdisjoint(parts):
        for at, (part, following) in enumerate(pairwise(parts)):
            if part in _LISTS and not is_number(following):
                parts.insert(at + 1, "{}")
                stacked = True
                break
    return Fold(".".join(parts), stacked, expert, half, piece)


def _expert(parts: list[str], half: str) -> tuple[list[str], int | None, str]:
    """Take the expert's number out of a key's parts; the rest is in the form `experts.experts.linear_fcN.weight`."""
    at = parts.index("experts")
    head, rest = parts[:at], parts[at + 1 :]
    if len(rest) > 1 and rest[0] in ("experts", "local_experts") and is_number(rest[1]):
        return [*head, "experts", "experts", *rest[2:]], int(rest[1]), half
    for kind in ("weight", "bias"):  # weight12, or weight12_w in Megatron-FSDP
        if rest and rest[-1].startswith(kind):
            number, _, tail = rest[-1].removeprefix(kind).partition("_")
            if is_number(number) and tail in ("", "w", "v") and rest[0] != "experts":
                return [*head, "experts", "experts", *rest[:-1], kind], int(number), tail or half
    return parts, None, half


def is_number(text: str) -> bool:
    """Whether it is the number of a layer or expert; a stranger's digits may be of any script and length."""
    return text.isascii() and text.isdigit() and len(text) < 10


@dataclass(slots=True)
class Stored:
    """A tensor as a file holds it.

    Attributes:
        spec: under its key.
        chunks: without strides.
        how: it lies in canonical tensors.
    """

    spec: TensorSpec
    chunks: Sequence[Chunk]
    how: Fold = field(init=False)

    def __post_init__(self) -> None:
        self.how = fold(self.spec.name)


def canonical(stored: Iterable[Stored]) -> tuple[dict[str, TensorSpec], dict[str, ChunkColumns]]:
    """Fold all tensors of a file.

    Returns:
        canonical specs, and the chunks of each.

    Raises:
        CorruptError: keys of different forms claim one tensor and do not fit together.
    """
    pieces = Pieces()
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    parts: dict[str, list[Moved]] = {}
    for tensor in stored:
        how, (key, _, dtype) = tensor.how, tensor.spec
        for name, shape, listed in _unstack(tensor):
            if how.piece:
                pieces.add(name, how.piece, pieces_of(name), Piece(TensorSpec(key, shape, dtype), listed))
                _check_number(tensor, len(pieces))
                continue
            if how.half or how.expert is not None:
                shape, part = _place(shape, listed, how)
            else:
                part = Moved(listed)
            known = shapes.get(name)
            if known is None:
                shapes[name], dtypes[name], parts[name] = shape, dtype, [part]
                _check_number(tensor, len(shapes))
                continue
            if len(known) != len(shape) or known[1:] != shape[1:] or dtype != dtypes[name]:
                raise CorruptError(
                    f"{shown(key)}: {shown(list(shape))} {dtype} does not fit {shown(list(known))} {dtypes[name]}, the "
                    f"rest of {shown(name)}",
                    TWO_FORMS,
                )
            if shape and shape[0] > known[0]:
                shapes[name] = shape
            parts[name].append(part)
    specs = {name: TensorSpec(name, shape, dtypes[name]) for name, shape in shapes.items()}
    chunks = {name: joined(listed) for name, listed in parts.items()}
    for spec, found in pieces.joined(specs):
        specs[spec.name], chunks[spec.name] = spec, found
    return specs, chunks


def _check_number(tensor: Stored, found: int) -> None:
    if found > MOST_TENSORS:
        raise CorruptError(
            f"{shown(tensor.spec.name)}: more than {MOST_TENSORS} tensors, which no model has",
            "The checkpoint is damaged or hostile.",
        )


def in_pieces(stored: Iterable[Stored], specs: Mapping[str, TensorSpec]) -> frozenset[str]:
    """Which of a file's canonical tensors it keeps in pieces."""
    folds = [(tensor.spec.shape, tensor.how) for tensor in stored if tensor.how.piece]
    names = {how.name.replace("{}", str(i), 1) for shape, how in folds for i in range(shape[0] if how.stacked else 1)}
    return frozenset(names & specs.keys())


def _unstack(tensor: Stored) -> Iterable[tuple[str, Shape, ChunkColumns]]:
    """(canonical name, shape, chunks) of one stored tensor, or of each layer of it."""
    how, shape = tensor.how, tensor.spec.shape
    chunks = columns_of(tensor.chunks, len(shape))
    if not how.stacked:
        return ((how.name, shape, chunks),)
    key = shown(tensor.spec.name)
    if not shape:
        raise CorruptError(f"{key}: has no layer axis", "The checkpoint is damaged.")
    if shape[0] > MOST_LAYERS:
        raise CorruptError(f"{key}: has {shape[0]} layers, which no model has", "The checkpoint is damaged or hostile.")
    if reaches_outside(chunks, shape[0]):
        raise CorruptError(f"{key}: a chunk reaches outside", "The checkpoint is damaged.")
    try:
        layers = rows_apart(chunks, shape[0])
    except ValueError:
        raise CorruptError(f"{key}: has more than {MOST} chunks", "The checkpoint is damaged or hostile.") from None
    return ((how.name.replace("{}", str(layer), 1), shape[1:], listed) for layer, listed in enumerate(layers))


def _place(shape: Shape, chunks: ChunkColumns, how: Fold) -> tuple[Shape, Moved]:
    """Where the chunks of a half, or of an expert, lie in the canonical tensor, and its shape as far as they show."""
    row = 0
    if how.half and shape:
        row = shape[0] if how.half == "v" else 0
        shape = (2 * shape[0], *shape[1:])
    if how.expert is not None:
        shape = (how.expert + 1, *shape)
    return shape, Moved(chunks, row, how.expert)
