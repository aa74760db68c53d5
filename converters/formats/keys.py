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

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from ..errors import CorruptError, shown
from ..tensors.spec import Shape, TensorSpec
from .chunks import Chunk, row_major
from .pieces import Piece, Pieces

LISTS = ("layers", "deepstack_merger_list", "deepstack_norm_list")
"""Module lists that megatron-core's sharded_state_dict may stack."""

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


def kind_of_ignored(name: str) -> str:
    """What an entry is that is no weight of a model, in a word for the summary; "" for what may be one."""
    by_head = (kind for head, kind in _HEADS.items() if name.startswith(head))
    return next(by_head, "") or next((kind for part, kind in _PARTS.items() if part in name), "")


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
    if pieces_of(key.rpartition(".")[0]):
        piece = parts.pop()
    if parts[-1].endswith(("_w", "_v")) and parts[-1][:-2] in ("weight", "bias"):
        parts[-1], half = parts[-1][:-2], parts[-1][-1]
    parts, expert, half = _expert(parts, half)
    stacked = False
    for at, part in enumerate(parts[:-1]):
        if part in LISTS and not is_number(parts[at + 1]):
            parts.insert(at + 1, "{}")
            stacked = True
            break
    return Fold(".".join(parts), stacked, expert, half, piece)


def _expert(parts: list[str], half: str) -> tuple[list[str], int | None, str]:
    """Take the expert's number out of a key's parts; the rest is in the form `experts.experts.linear_fcN.weight`."""
    if "experts" not in parts:
        return parts, None, half
    at = parts.index("experts")
    head, rest = parts[:at], parts[at + 1 :]
    if rest and rest[0] in ("experts", "local_experts") and len(rest) > 1 and is_number(rest[1]):
        return [*head, "experts", "experts", *rest[2:]], int(rest[1]), half
    for kind in ("weight", "bias"):  # weight12, or weight12_w in Megatron-FSDP
        number, _, tail = (
            rest[-1].removeprefix(kind).partition("_") if rest and rest[-1].startswith(kind) else ("", "", "")
        )
        if is_number(number) and tail in ("", "w", "v") and rest[0] != "experts":
            return [*head, "experts", "experts", *rest[:-1], kind], int(number), tail or half
    return parts, None, half


def is_number(text: str) -> bool:
    """Whether it is the number of a layer or expert; a stranger's digits may be of any script and length."""
    return text.isascii() and text.isdigit() and len(text) < 10


class Stored(NamedTuple):
    """A tensor as a file holds it."""

    spec: TensorSpec
    chunks: list[Chunk]


def canonical(stored: Iterable[Stored]) -> tuple[dict[str, TensorSpec], dict[str, list[Chunk]]]:
    """Fold all tensors of a file.

    Returns:
        canonical specs, and the chunks of each.

    Raises:
        CorruptError: keys of different forms claim one tensor and do not fit together.
    """
    pieces = Pieces()
    shapes: dict[str, Shape] = {}
    dtypes: dict[str, str] = {}
    chunks: dict[str, list[Chunk]] = {}
    for tensor in stored:
        how = fold(tensor.spec.name)
        for name, shape, listed in _unstack(tensor, how):
            if how.piece:
                one = Piece(TensorSpec(tensor.spec.name, shape, tensor.spec.dtype), listed)
                pieces.add(name, how.piece, pieces_of(name), one)
                _check_number(tensor, len(pieces))
                continue
            known, dtype = shapes.get(name, shape), dtypes.setdefault(name, tensor.spec.dtype)
            if len(known) != len(shape) or known[1:] != shape[1:] or dtype != tensor.spec.dtype:
                raise CorruptError(
                    f"{shown(tensor.spec.name)}: {shown(list(shape))} {tensor.spec.dtype} does not fit "
                    f"{shown(list(known))} {dtype}, the rest of {shown(name)}",
                    "Two forms of one tensor are in the checkpoint, or it is damaged.",
                )
            shapes[name] = (max(known[0], shape[0]), *shape[1:]) if shape else shape
            _check_number(tensor, len(shapes))
            chunks.setdefault(name, []).extend(listed)
    whole = {name: TensorSpec(name, shape, dtypes[name]) for name, shape in shapes.items()}
    for spec, listed in pieces.joined(whole):
        whole[spec.name], chunks[spec.name] = spec, listed
    return whole, chunks


def _check_number(tensor: Stored, found: int) -> None:
    if found > MOST_TENSORS:
        raise CorruptError(
            f"{shown(tensor.spec.name)}: more than {MOST_TENSORS} tensors, which no model has",
            "The checkpoint is damaged or hostile.",
        )


def in_pieces(stored: Iterable[Stored], specs: Mapping[str, TensorSpec]) -> frozenset[str]:
    """Which of a file's canonical tensors it keeps in pieces."""
    folds = [(tensor.spec.shape, how) for tensor in stored if (how := fold(tensor.spec.name)).piece]
    names = {how.name.replace("{}", str(i), 1) for shape, how in folds for i in range(shape[0] if how.stacked else 1)}
    return frozenset(names & specs.keys())


def _unstack(tensor: Stored, how: Fold) -> Iterator[tuple[str, Shape, list[Chunk]]]:
    """(canonical name, its shape as far as this key shows, chunks) of one stored tensor."""
    shape = tensor.spec.shape
    if not how.stacked:
        yield how.name, *_place(shape, tensor.chunks, how)
        return
    if not shape:
        raise CorruptError(f"{shown(tensor.spec.name)}: has no layer axis", "The checkpoint is damaged.")
    if shape[0] > MOST_LAYERS:
        raise CorruptError(
            f"{shown(tensor.spec.name)}: has {shape[0]} layers, which no model has",
            "The checkpoint is damaged or hostile.",
        )
    layers: list[list[Chunk]] = [[] for _ in range(shape[0])]
    for chunk in tensor.chunks:
        strides = chunk.strides or row_major(chunk.lengths)
        for row in range(chunk.lengths[0]):
            layer = chunk.offsets[0] + row
            if not 0 <= layer < len(layers):
                raise CorruptError(f"{shown(tensor.spec.name)}: a chunk reaches outside", "The checkpoint is damaged.")
            layers[layer].append(
                Chunk(
                    chunk.offsets[1:],
                    chunk.lengths[1:],
                    chunk.item,
                    chunk.start + row * strides[0],
                    chunk.strides and strides[1:],
                )
            )
    for layer, listed in enumerate(layers):
        yield how.name.replace("{}", str(layer), 1), *_place(shape[1:], listed, how)


def _place(shape: Shape, chunks: list[Chunk], how: Fold) -> tuple[Shape, list[Chunk]]:
    """Shift a layer's chunks to their half and expert."""
    if how.half and shape:
        row = shape[0] if how.half == "v" else 0
        chunks = [c._replace(offsets=(c.offsets[0] + row, *c.offsets[1:])) for c in chunks]
        shape = (2 * shape[0], *shape[1:])
    if how.expert is not None:
        e = how.expert
        chunks = [
            Chunk((e, *c.offsets), (1, *c.lengths), c.item, c.start, c.strides and (0, *c.strides)) for c in chunks
        ]
        shape = (e + 1, *shape)
    return shape, chunks
