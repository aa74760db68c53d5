"""What the files of a legacy checkpoint state of themselves, held against one another and against their folders.

Each file states the iteration and Megatron's args: the sizes of the run that saved it, and the rank that did. Megatron
counts ranks tensor parallelism first, then context and data parallelism, then the pipeline; or, with
--use-tp-pp-dp-mapping, data parallelism last. And it seeds a generator by tensor and pipeline rank.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import CorruptError, shown, shown_path
from ....tensors.sharding import Topology
from ...sums.replicas import checksum
from ..layers import TWO
from ..ranks import Rank
from ..saved import Saved

SIZES = (
    "world_size",
    "tensor_model_parallel_size",
    "pipeline_model_parallel_size",
    "virtual_pipeline_model_parallel_size",
    "context_parallel_size",
    "expert_model_parallel_size",
    "expert_tensor_parallel_size",
)
"""Args that are the same on every rank of a run."""

ANOTHER = "It is another rank's file: copy each rank's own file again from where it was saved."


def check_statements(directory: Path, saved: Sequence[Saved]) -> dict[str, Any]:
    """All ranks were saved at the same time, by a run of the same sizes.

    Args:
        directory: of the checkpoint.
        saved: every rank's file.

    Returns:
        the args of the first that states any; {} where none does.

    Raises:
        CorruptError: they were not.
    """
    _check_same(directory, "were saved at different iterations: {}", "{} at {}", ((s, s.iteration) for s in saved))
    stating = [s for s in saved if s.args]
    for name in SIZES:
        listed = ((s, s.args.get(name)) for s in stating)
        _check_same(directory, "state different sizes: {}", f"{{}} {name} {{}}", listed)
    return stating[0].args if stating else {}


def _check_same(directory: Path, what: str, each: str, stated: Iterable[tuple[Saved, object]]) -> None:
    found: dict[str, str] = {}
    for saved, value in stated:
        found.setdefault(shown(value), saved.folder)
    if len(found) > 1:
        listed = ", ".join(each.format(folder, value) for value, folder in list(found.items())[:5])
        raise CorruptError(f"{shown_path(directory)}: ranks {what.format(listed)}", TWO)


def check_places(directory: Path, ranks: Mapping[Rank, Saved], topology: Topology) -> None:
    """Every file lies in the folder of the rank that it states.

    Nothing is said where not every file states one, or where fewer processes than there are files wrote them, as
    converters do.

    Args:
        directory: of the checkpoint.
        ranks: every rank's file.
        topology: of the checkpoint.

    Raises:
        CorruptError: one does not; names its folder and the rank.
    """
    stated = {rank: saved.args.get("rank") for rank, saved in ranks.items()}
    args = next(iter(ranks.values())).args
    world = _size(args, "world_size")
    numbers = {rank: n for rank, n in stated.items() if type(n) is int}
    alone = len(set(numbers.values())) == 1 or (world and world < len(ranks))
    if len(numbers) < len(ranks) or alone or _size(args, "encoder_pipeline_model_parallel_size"):
        return
    counts = Counter(numbers.values())
    for rank, number in numbers.items():
        if counts[number] > 1:
            twice = [ranks[r].folder for r, n in numbers.items() if n == number]
            raise CorruptError(f"{shown_path(directory)}: {' and '.join(twice[:5])} both state rank {number}", ANOTHER)
        if not 0 <= number < (world or number + 1) or number % topology.tp != rank.tp:
            raise _misplaced(directory, ranks[rank], number)
    if world and world % topology.pp == 0:
        _check_stages(directory, ranks, numbers, _stages(args, world, topology))


def _stages(args: Mapping[str, Any], world: int, topology: Topology) -> list[Callable[[int], int]]:
    """The pipeline stage of a rank in each of Megatron's orders."""
    stages = topology.pp
    # In the second order these run faster than the pipeline.
    inner = topology.tp * (_size(args, "context_parallel_size") or 1) * (_size(args, "gtp_weight_remat_size") or 1)
    return [lambda number: number // (world // stages), lambda number: number // inner % stages]


def _check_stages(
    directory: Path, ranks: Mapping[Rank, Saved], numbers: Mapping[Rank, int], orders: Iterable[Callable[[int], int]]
) -> None:
    wrong = [[rank for rank, number in numbers.items() if order(number) != rank.pp] for order in orders]
    if all(wrong):
        rank = min(wrong, key=len)[0]
        raise _misplaced(directory, ranks[rank], numbers[rank])


def _misplaced(directory: Path, saved: Saved, number: int) -> CorruptError:
    return CorruptError(
        f"{shown_path(directory / saved.folder)}: its args state rank {number}, whose folder this is not", ANOTHER
    )


def _size(args: Mapping[str, Any], name: str) -> int:
    value = args.get(name)
    return value if type(value) is int and value > 0 else 0


def equal_seeds(ranks: Mapping[Rank, Saved]) -> list[str]:
    """A warning where ranks that Megatron seeds differently hold the same state of that generator.

    Nothing is said where not every file holds one.
    """
    if not all(saved.random for saved in ranks.values()):
        return []
    first: dict[tuple[object, ...], Rank] = {}
    for rank, saved in ranks.items():
        state = tuple((t.shape, t.dtype, checksum(saved.path, t)) for t in saved.random)
        other = first.setdefault(state, rank)
        if (other.tp, other.pp) != (rank.tp, rank.pp):
            folders = f"{ranks[other].folder} and {saved.folder}"
            why = "which Megatron seeds for each: one file may be a copy of the other"
            return [f"{folders} hold the same state of model-parallel-rng, {why}"]
    return []
