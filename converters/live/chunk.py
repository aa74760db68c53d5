"""The tensors of one model chunk of one rank, under the names that they have there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..errors import MismatchError, shown
from ..formats.keys import fold, ignorable
from ..layouts.refusals import stripped
from ..layouts.shared.divisions import check_divides
from ..layouts.shared.splits import splits_of
from ..parallel.model_chunk import Dealt, Held, WholeModel
from ..parallel.rank import Rank, checked
from ..tensors.mapped import nearest
from ..tensors.sharding import Topology
from ..tensors.spec import Shape, TensorSpec
from ..tensors.vocabulary import padded_rows
from .convert import per_token
from .model import LiveModel

Key = tuple[str, int | None]
"""A tensor of a chunk, however its experts are spelled."""


def chunk_of(
    model: LiveModel, topology: Topology, rank: Rank, names: Iterable[str] | None, divisor: int | None
) -> dict[str, Held]:
    """What a model chunk has, by name.

    Args:
        names: the chunk's own, which the result then has; None: as on Transformer Engine, without prefixes.
        divisor: the trainer's make_vocab_size_divisible_by.

    Raises:
        MismatchError: a topology or rank that cannot be, or names that are not those of this chunk.
    """
    dealt = _dealt(model, topology, divisor)
    chunk = {held.name: held for held in dealt.held(checked(rank, topology))}
    if names is None:
        return chunk
    return _named(chunk, names, _spellings(model, dealt, rank), rank)


def _dealt(model: LiveModel, topology: Topology, divisor: int | None) -> Dealt:
    config, layout, shapes = model.config, model.layout, model.table().mcore
    check_divides(config, layout, topology)
    rows = padded_rows(config.text.vocab, divisor, topology.tp)
    specs = {name: TensorSpec(name, _with_rows(name, shape, rows), "bfloat16") for name, shape in shapes.items()}
    splits = splits_of(specs, config, layout)
    return Dealt(WholeModel(specs, splits, layout.text, layout.sequential, config.text.tied), topology)


def _with_rows(name: str, shape: Shape, rows: int) -> Shape:
    return (rows, *shape[1:]) if per_token(name) else shape


def _spellings(model: LiveModel, dealt: Dealt, rank: Rank) -> dict[str, str]:
    """Other names that a chunk's tensors may have -> theirs, both with the chunk's own layer numbers."""
    return dict(_local_spellings(model.layout.spellings(model.config), dealt, rank))


def _local_spellings(pairs: Iterable[tuple[str, str]], dealt: Dealt, rank: Rank) -> Iterator[tuple[str, str]]:
    for other, name in pairs:
        there = dealt.place(name)
        if (there.stage, there.chunk) == (rank.pp, rank.vp):
            yield dealt.place(other).name, there.name


def _key(name: str) -> Key:
    how = fold(name)
    return how.name, how.expert


def _named(
    chunk: Mapping[str, Held], names: Iterable[str], spellings: Mapping[str, str], rank: Rank
) -> dict[str, Held]:
    """The chunk's tensors under the names that are given."""
    by_key = {_key(name): held for name, held in chunk.items()}
    left, result = dict(by_key), {}
    for name in names:
        short = stripped(name)
        if ignorable(short):
            continue
        how, expert = _key(short)
        key = (how if (how, expert) in by_key else spellings.get(how, how), expert)
        if left.pop(key, None) is None:
            twice = " twice" if key in by_key else ""
            raise MismatchError(f"{shown(name)} is no tensor{twice} of {_called(rank)}{nearest(short, chunk)}", HINT)
        result[name] = by_key[key]
    missing = [held.name for held in left.values() if not held.copy]
    if missing:
        raise MismatchError(
            f"{_called(rank)} has {len(missing)} tensors that are not among the names, such as {missing[0]}", HINT
        )
    return result


HINT = (
    "Are config, layout, topology and rank those of the job? Without the multi-token-prediction head that the config "
    "promises, make the model with mtp=False."
)


def _called(rank: Rank) -> str:
    return f"the model chunk {rank.vp} of " + ", ".join(f"{n} {getattr(rank, n)}" for n in ("tp", "pp", "ep", "etp"))
