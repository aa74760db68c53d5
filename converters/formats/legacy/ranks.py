"""The rank directories of a legacy checkpoint.

`mp_rank_{tp:02d}[_{pp:03d}][_{ep:03d}]`, and which parallel sizes they mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import CorruptError, UnsupportedError, shown, shown_path
from ...tensors.sharding import Topology
from ..open_files import children, is_dir, is_file

NAME = "torch"
PREFIX = "mp_rank_"
FILES = ("model_optim_rng.pt", "model_rng.pt", "model_states.pt")
OPTIMIZER = ("optim.pt", "distrib_optim.pt")

_NAME = re.compile(r"mp_rank_(\d{2,})(?:_(\d{3,}))?(?:_(\d{3,}))?", re.ASCII)

LISTED = 8
"""Directories that a message names."""

MOST = 2**20
"""Of TP x TP x PP x EP: ranks are enumerated, so their number is bounded before."""


class Rank(NamedTuple):
    """A rank's coordinates."""

    tp: int
    pp: int
    ep: int


def holds(directory: Path) -> bool:
    """Whether a directory itself is a legacy checkpoint."""
    return any(child.name.startswith(PREFIX) for child in children(directory))


def rank_files(directory: Path) -> dict[tuple[int, ...], Path]:
    """The file of each rank directory, by the numbers in its name.

    Raises:
        CorruptError: a directory without its file, or with another name.
    """
    found: dict[tuple[int, ...], Path] = {}
    for folder in (child for child in children(directory) if child.name.startswith(PREFIX)):
        match = _NAME.fullmatch(folder.name)
        if match is None or not is_dir(folder):
            raise CorruptError(
                f"{shown_path(folder)}: not a rank directory's name",
                "Expected mp_rank_TT, mp_rank_TT_PPP, mp_rank_TT_EEE or mp_rank_TT_PPP_EEE.",
            )
        path = next((folder / name for name in FILES if is_file(folder / name)), None)
        if path is None:
            raise CorruptError(
                f"{shown_path(folder)}: holds no {FILES[0]}", "The checkpoint is incomplete: copy or save it again."
            )
        found[tuple(int(n) for n in match.groups() if n is not None)] = path
    if len({len(numbers) for numbers in found}) > 1:
        raise CorruptError(
            f"{shown_path(directory)}: rank directories of different forms: {_listed(sorted(found))}",
            "Two checkpoints lie in one directory.",
        )
    return found


def owns(entry: Path) -> bool:
    """Whether something in a legacy checkpoint's directory is part of it.

    That is a rank's folder with that rank's files alone.
    """
    if entry.is_symlink() or not is_dir(entry) or _NAME.fullmatch(entry.name) is None:
        return False
    return all(is_file(file) and file.name in (*FILES, *OPTIMIZER) for file in children(entry))


def folder_name(numbers: Iterable[int]) -> str:
    """The directory of some numbers: (0, 1) -> "mp_rank_00_001"."""
    first, *rest = numbers
    return f"{PREFIX}{first:02d}" + "".join(f"_{n:03d}" for n in rest)


def _listed(found: list[tuple[int, ...]]) -> str:
    """Some of them, by the names of their directories."""
    more = f" and {len(found) - LISTED} more" if len(found) > LISTED else ""
    return ", ".join(shown(folder_name(numbers)) for numbers in found[:LISTED]) + more


def numbers_of(rank: Rank, topology: Topology) -> tuple[int, ...]:
    """The numbers in a rank directory's name.

    Pp only where there is a pipeline, ep only where experts are dealt out.
    """
    return (rank.tp, *((rank.pp,) if topology.pp > 1 else ()), *((rank.ep,) if topology.ep > 1 else ()))


def all_ranks(topology: Topology) -> Iterator[Rank]:
    """Every rank that has a file."""
    for pp in range(topology.pp):
        for tp, ep in topology.ranks():
            yield Rank(tp, pp, ep)


def explain(directory: Path, found: Iterable[tuple[int, ...]], args: Mapping[str, Any], second_is_ep: bool) -> Topology:
    """The topology whose directories are exactly those found.

    Args:
        directory: for messages.
        found: the numbers of each directory.
        args: Megatron's args; sizes that they state are taken, others read off the names.
        second_is_ep: what the second of two numbers is, where the args do not say.

    Raises:
        CorruptError: directories are missing or left over; lists them.
        UnsupportedError: an expert tensor parallel size that names cannot tell.
    """
    listed = sorted(found)
    sizes = _sizes(listed, args, second_is_ep)
    if sizes["tp"] ** 2 * sizes["pp"] * sizes["ep"] > MOST:
        raise CorruptError(
            f"{shown_path(directory)}: {len(listed)} rank directories, where TP is {shown(sizes['tp'])}, PP "
            f"{shown(sizes['pp'])} and EP {shown(sizes['ep'])} by their names and args",
            "The checkpoint is incomplete or damaged: copy or save it again.",
        )
    stated = _size(args, "expert_tensor_parallel_size")
    candidates = [stated] if stated else [sizes["tp"], 1]
    if stated and stated not in (1, sizes["tp"]):
        raise UnsupportedError(
            f"{shown_path(directory)}: expert tensor parallel size {stated} with tensor parallel size {sizes['tp']}",
            "Only ETP = TP and ETP = 1 can be told from rank directories.",
        )
    for etp in candidates:
        topology = Topology(**sizes, etp=etp)
        if sorted(numbers_of(r, topology) for r in all_ranks(topology)) == listed:
            return topology
    topology = Topology(**sizes, etp=candidates[0])
    expected = {numbers_of(r, topology) for r in all_ranks(topology)}
    missing, surplus = sorted(expected - set(listed)), sorted(set(listed) - expected)
    said = "; ".join(
        f"{what}: {_listed(names)}" for what, names in (("missing", missing), ("not expected", surplus)) if names
    )
    raise CorruptError(
        f"{shown_path(directory)}: the rank directories fit no topology. For TP {sizes['tp']}, PP {sizes['pp']}, EP "
        f"{sizes['ep']}, ETP {topology.etp}: {said}",
        "The checkpoint is incomplete, or two lie in one directory: copy or save it again.",
    )


def _sizes(listed: list[tuple[int, ...]], args: Mapping[str, Any], second_is_ep: bool) -> dict[str, int]:
    """tp, pp and ep: stated, else one more than the largest number in that place."""
    most = [max(numbers) + 1 for numbers in zip(*listed, strict=True)]
    pp, ep = _size(args, "pipeline_model_parallel_size"), _size(args, "expert_model_parallel_size")
    if len(most) == 3:
        read = {"tp": most[0], "pp": most[1], "ep": most[2]}
    elif len(most) == 2:
        is_ep = (ep or 1) > 1 if pp is not None or ep is not None else second_is_ep
        read = {"tp": most[0], "pp": 1 if is_ep else most[1], "ep": most[1] if is_ep else 1}
    else:
        read = {"tp": most[0], "pp": 1, "ep": 1}
    stated = {"tp": _size(args, "tensor_model_parallel_size"), "pp": pp, "ep": ep}
    return {name: value or read[name] for name, value in stated.items()}


def _size(args: Mapping[str, Any], name: str) -> int | None:
    value = args.get(name)
    return value if type(value) is int and 0 < value < 2**16 else None
