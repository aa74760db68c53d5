"""The known permutations, tried on tensors that differ: a few places first, then every element."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ...layouts.faults.fault import Fault, Group
from ...layouts.faults.known import FAULTS
from ...models.shared.config import ModelConfig
from ...tensors.spec import Box, Reader
from .passes import Passes
from .remembered import Remembered
from .sample import Likeness, likeness, probes, same

TRAINED = 0.3
"""Relative to their length, numbers that were trained are nearer than this, and those in another place are not."""


Candidate = tuple[Fault, Group]


class Permuted(NamedTuple):
    """What was found of the tensors of one group.

    Attributes:
        fault: the first that fits.
        others: those that fit too and are the same permutation.
        rivals: those that fit too and are another: the numbers do not tell which it was.
        names: of the group's tensors.
        of: "A" if B is what the fault makes of A, "B" if A is what it makes of B.
        exact: every element is what the fault makes of the other side's.
        relative: else how far the numbers are off at a few places, as where they were trained, too.
    """

    fault: Fault
    others: tuple[str, ...]
    rivals: tuple[str, ...]
    names: tuple[str, ...]
    of: str
    exact: bool
    relative: float = 0.0


def permuted(a: Reader, b: Reader, config: ModelConfig, wrong: Collection[str], passes: Passes) -> Iterator[Permuted]:
    """What known permutations explain.

    Args:
        a, b: the two sides, under the Hub's names.
        config: the integers of both.
        wrong: the tensors that differ.
        passes: how they are looked at.
    """
    groups = _by_group(a, b, config, set(wrong))
    nbytes = {names: sum(a.specs[name].nbytes for name in names) for names in groups}
    found = passes.over([*groups], nbytes.__getitem__, lambda names: _explained(a, b, names, groups[names]))
    yield from (one for _, one in found if one)


def _by_group(a: Reader, b: Reader, config: ModelConfig, wrong: set[str]) -> Mapping[tuple[str, ...], list[Candidate]]:
    """The candidates for each lot of tensors that may have been mixed up and of which some differ."""
    groups: dict[tuple[str, ...], list[Candidate]] = {}
    for fault in FAULTS.values():
        for group in fault.groups(config):
            if wrong.isdisjoint(group.names) or not all(_comparable(a, b, name) for name in group.names):
                continue
            groups.setdefault(group.names, []).append((fault, group))
    return groups


def _comparable(a: Reader, b: Reader, name: str) -> bool:
    return name in a.specs and name in b.specs and a.specs[name][1:] == b.specs[name][1:]


def _explained(a: Reader, b: Reader, names: tuple[str, ...], candidates: list[Candidate]) -> Permuted | None:
    """What fits exactly, else what is as near as training leaves it."""
    places = [probes(a.specs[name]) for name in names]
    stand = _worst(a, b, places).relative
    if all(len(a.specs[name].shape) > 1 for name in names) and stand < TRAINED:
        return None  # a little off where they stand: nothing has moved
    for good, bad, of in ((a, b, "A"), (b, a, "B")):
        exact, near = _fitting(good, bad, names, candidates, places, min(TRAINED, stand / 2))
        if exact:
            return _told(names, exact, of)
        if near and not _rivals([candidate for candidate, _ in near]):
            (fault, _), off = near[0]
            return Permuted(fault, (), (), names, of, exact=False, relative=off)
    return None


def _fitting(
    good: Reader, bad: Reader, names: tuple[str, ...], candidates: list[Candidate], places: list[list[Box]], most: float
) -> tuple[list[Candidate], list[tuple[Candidate, float]]]:
    """The candidates that make one side of the other exactly, and those that come near, with how far they are off.

    Args:
        good, bad: the two sides.
        names: of the tensors of a group.
        candidates: for it.
        places: of each tensor, that are looked at first.
        most: how far what comes near may be off; biases are alike in any order, and no fault's where they stand.
    """
    exact, near, held = list[Candidate](), list[tuple[Candidate, float]](), Remembered(good)
    for fault, group in candidates:
        made = group.made(held)
        if likeness(made, bad, places[0][:1]).relative >= TRAINED:
            continue
        found = _worst(made, bad, places)
        if found.equal and same(made, bad, names):
            exact.append((fault, group))
        elif found.relative < most:
            near.append(((fault, group), found.relative))
    return exact, near


def _worst(a: Reader, b: Reader, places: list[list[Box]]) -> Likeness:
    """How a group compares: as its tensor that is furthest off, as small numbers do not show beside large ones."""
    found = [likeness(a, b, boxes) for boxes in places]
    return max(found, key=lambda one: one.relative)._replace(equal=all(one.equal for one in found))


def _told(names: tuple[str, ...], exact: list[Candidate], of: str) -> Permuted:
    """The first, and how the others compare."""
    rivals = _rivals(exact)
    alike = tuple(fault.name for fault, _ in exact[1:] if fault.name not in rivals)
    return Permuted(exact[0][0], alike, rivals, names, of, exact=True)


def _rivals(found: list[Candidate]) -> tuple[str, ...]:
    """Those that are another permutation than the first."""
    (_, group), *others = found
    return tuple(fault.name for fault, theirs in others if not group.moves_as(theirs))
