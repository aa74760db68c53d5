"""An adapter out of a PEFT directory: names, shapes and ranks held against the model that it changes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from ...errors import MismatchError, shown, shown_path
from ...formats.directory.contents import ADAPTER_CONFIG
from ...models.shared.config import ModelConfig
from ...tensors.mapped import Mapped
from ...tensors.rules import Copy, rename
from ...tensors.spec import Box, Shape
from ..adapter import Adapter, Pair
from .experts_last import ExpertsFirst
from .matrices import Matrix, matrices
from .opened import A, B, Halves, PeftSide, halves_of
from .stated import OUT_FIRST

GATE_UP, DOWN = "gate_up_proj", "down_proj"
"""The two parameters of a module that holds all experts of a layer."""


class Read(NamedTuple):
    """What one lora_A and one lora_B change.

    Attributes:
        name: what peft's patterns go by: the module's path, and a parameter's name.
        pairs: of the matrices.
        copies: from the file's tensors (left) to those of the pairs (right).
        turned: B of E experts, and E.
    """

    name: str
    pairs: list[Pair]
    copies: list[Copy]
    turned: Mapping[str, int] = {}


def adapter_of(side: PeftSide, config: ModelConfig) -> Adapter:
    """The adapter of a PEFT directory, held against the model that it changes.

    Raises:
        MismatchError: a tensor is of no module of the model, or of another shape or rank than module and config say.
        UnsupportedError: tensors that are no plain LoRA's, or a pattern or scale that cannot be told.
    """
    known = matrices(config)
    halves = halves_of(side)
    linear = known | {matrix.path: matrix for matrix in known.values() if matrix.kind != "head"}
    packed: dict[str, list[Matrix]] = {}
    for matrix in known.values():
        if matrix.experts and matrix.kind != "head":
            packed.setdefault(matrix.experts, []).append(matrix)
    parts: list[Read] = []
    for one in halves.values():
        stem = one.module.removesuffix(".base_layer")
        if one.module in linear:
            parts.append(read_linear(side, one, linear[one.module]))
        elif stem in packed:
            other = halves.get(f"{stem}.base_layer" if one.module == stem else stem)
            parts.append(read_experts(side, one, other, packed[stem]))
        else:
            raise MismatchError(
                f"{shown_path(side.directory)}: {shown(one.module)} is no module of this {config.model_type} that an "
                "adapter can change",
                "Give the model that the adapter was trained on: --base.",
            )
    names = [part.name for part in parts]
    side.stated.alphas.check_used(names)
    pairs = _each_once(side, parts)
    reader = Mapped(
        ExpertsFirst(side.chunks, {name: count for part in parts for name, count in part.turned.items()}),
        [copy for part in parts for copy in part.copies],
    )
    ordered = tuple(pairs[module] for module in known if module in pairs)
    return Adapter(reader, ordered, f"{ADAPTER_CONFIG} of {shown_path(side.directory)}")


def _each_once(side: PeftSide, parts: Iterable[Read]) -> dict[str, Pair]:
    pairs: dict[str, Pair] = {}
    for pair in (pair for part in parts for pair in part.pairs):
        if pair.module in pairs:
            raise MismatchError(
                f"{shown_path(side.directory)}: {pair.module} is there under two names",
                "The file mixes adapters of different origin.",
            )
        pairs[pair.module] = pair
    return pairs


def read_linear(side: PeftSide, one: Halves, matrix: Matrix) -> Read:
    """The adapter of one matrix; a router's may be stated as that of a parameter."""
    bare = f"{one.module}.weight"
    name = bare if any(f".{bare}".endswith(f".{stated}") for stated in side.stated.parameters) else one.module
    rank = side.stated.rank_of(name)
    _check(side, one, (rank, matrix.shape[1]), (matrix.shape[0], rank))
    pair = _pair(matrix, f"{matrix.module}{A}", rank, side.stated.alpha_of(name))
    copies = [*rename(one.a.name, pair.a, one.a.shape), *rename(one.b.name, pair.b, one.b.shape)]
    return Read(name, [pair], copies)


def read_experts(side: PeftSide, one: Halves, other: Halves | None, all_of: Sequence[Matrix]) -> Read:
    """The adapter of one parameter that holds all experts: each has rank rows of A, and every Eth column of B."""
    part = _parameter(side, one, other)
    ours = [matrix for matrix in all_of if (_part(matrix) == DOWN) == (part == DOWN)]
    experts, (rows, columns) = len({matrix.expert for matrix in ours}), ours[0].shape
    name = f"{ours[0].experts}.{part}"
    rank, alpha = side.stated.rank_of(name), side.stated.alpha_of(name)
    out = rows if part == DOWN else 2 * rows
    read = Read(name, [], [], {one.b.name: experts})
    a, b = (experts * rank, columns), (out, rank * experts)
    turned = _is_turned(side, one, a, b, always=not ours[0].transpose)
    _check(side, one, *(((a[0], b[0]), (a[1], b[1])) if turned else (a, b)))
    for matrix in ours:
        stem = matrix.module.rpartition(".")[0]
        pair = _pair(matrix, f"{stem}.{part}{A}", rank, alpha)
        read.pairs.append(pair)
        first = rows if _part(matrix) == "up_proj" else 0
        whose_b, whose_a = _of_expert(one, matrix, pair, first, turned=turned)
        read.copies.append(Copy(whose_b, Box(pair.b, (0, 0), (rows, rank)), transpose=turned))
        if not first:  # gate and up have one A
            read.copies.append(Copy(whose_a, Box(pair.a, (0, 0), (rank, columns)), transpose=turned))
    return read


def _of_expert(one: Halves, matrix: Matrix, pair: Pair, first: int, *, turned: bool) -> tuple[Box, Box]:
    """Where B and A of an expert's matrix lie, whose rows begin at `first` in the parameter."""
    (rows, columns), rank = matrix.shape, pair.rank
    if turned:
        return (
            Box(one.a.name, (matrix.expert * rank, first), (rank, rows)),
            Box(one.b.name, (matrix.expert, 0, 0), (1, columns, rank)),
        )
    return (
        Box(one.b.name, (matrix.expert, first, 0), (1, rows, rank)),
        Box(one.a.name, (matrix.expert * rank, 0), (rank, columns)),
    )


def _is_turned(side: PeftSide, one: Halves, a: Shape, b: Shape, *, always: bool) -> bool:
    """Whether A and B of experts are B and A, transposed, of what they are here: of shapes `b` and `a`, transposed.

    So they are of peft before OUT_FIRST, and of a later one where transformers holds the parameter as [E, in, out].
    Shapes tell, unless the matrices are square.

    Args:
        side, one: the tensors.
        a, b: the shapes of those that are not turned.
        always: transformers has always held the parameter as [E, out, in].

    Raises:
        MismatchError: nothing tells.
    """
    version = side.stated.version
    if a[1] != b[0]:
        return (one.a.shape, one.b.shape) == ((a[0], b[0]), (a[1], b[1]))
    if not version or not always:
        raise MismatchError(
            f"{shown_path(side.directory)}: {shown(one.a.name)} is of square matrices, and which way round they are "
            f"depends on the versions of peft (before and from {'.'.join(map(str, OUT_FIRST))} on) and transformers",
            f"Say the version in {ADAPTER_CONFIG} (peft_version)." if always else "Merge it with peft.",
        )
    return version < OUT_FIRST


def _part(matrix: Matrix) -> str:
    return matrix.module.rpartition(".")[2]


def _pair(matrix: Matrix, a: str, rank: int, alpha: float) -> Pair:
    return Pair(matrix.module, matrix.weight, matrix.transpose, a, f"{matrix.module}{B}", rank, alpha)


def _parameter(side: PeftSide, one: Halves, other: Halves | None) -> str:
    """Which parameter the tensors are of: of two the last one is wrapped last, so that it lies outermost."""
    if other is not None:
        return GATE_UP if one.module.endswith(".base_layer") else DOWN
    named = {name.rpartition(".")[2] for name in side.stated.parameters} & {GATE_UP, DOWN}
    if len(named) == 1 and not one.module.endswith(".base_layer"):
        return named.pop()
    raise MismatchError(
        f"{shown_path(side.directory)}: {shown(one.module)} has one adapter, and target_parameters in {ADAPTER_CONFIG} "
        "do not say of which parameter",
        f"They name one of {GATE_UP} and {DOWN} where only one is adapted.",
    )


def _check(side: PeftSide, one: Halves, a: Shape, b: Shape) -> None:
    """Raises MismatchError unless A and B have these shapes."""
    for spec, shape in ((one.a, a), (one.b, b)):
        if spec.shape != shape:
            raise MismatchError(
                f"{shown_path(side.directory)}: {shown(spec.name)} is {list(spec.shape)}, and model and rank make "
                f"{list(shape)} of it",
                f"Ranks in {ADAPTER_CONFIG} and the base must be those that the adapter was trained with.",
            )
