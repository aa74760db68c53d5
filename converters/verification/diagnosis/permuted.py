"""The known permutations, tried on tensors that differ: a few places first, then every element."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ...layouts.faults.fault import Fault, Group, normal
from ...layouts.faults.known import FAULTS
from ...models.shared.config import ModelConfig
from ...tensors.mapped import Mapped
from ...tensors.spec import Box, Reader
from .remembered import Remembered
from .sample import likeness, probes, same

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


def permuted(a: Reader, b: Reader, config: ModelConfig, wrong: Collection[str]) -> Iterator[Permuted]:
    """What known permutations explain.

    Args:
        a, b: the two sides, under the Hub's names.
        config: the integers of both.
        wrong: the tensors that differ.
    """
    for names, candidates in _by_group(a, b, config, set(wrong)).items():
        found = _explained(a, b, names, candidates)
        if found:
            yield found


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
    places = [box for name in names for box in probes(a.specs[name])]
    if all(len(a.specs[name].shape) > 1 for name in names) and likeness(a, b, places).relative < TRAINED:
        return None  # a little off where they stand: nothing has moved
    for good, bad, of in ((a, b, "A"), (b, a, "B")):
        exact, near = _fitting(good, bad, names, candidates, places)
        if exact:
            return _told(names, exact, of)
        if len(near) == 1:
            return Permuted(near[0][0], (), (), names, of, exact=False, relative=near[0][1])
    return None


def _fitting(
    good: Reader, bad: Reader, names: tuple[str, ...], candidates: list[Candidate], places: list[Box]
) -> tuple[list[Candidate], list[tuple[Fault, float]]]:
    """The candidates that make one side of the other exactly, and those that come near, with how far they are off."""
    exact, near, held = list[Candidate](), list[tuple[Fault, float]](), Remembered(good)
    for fault, group in candidates:
        if likeness(Mapped(held, (group.begin or group.build)()), bad, places[:1]).relative >= TRAINED:
            continue
        made = Mapped(held, group.build())
        found = likeness(made, bad, places)
        if found.equal and same(made, bad, names):
            exact.append((fault, group))
        elif found.relative < TRAINED:
            near.append((fault, found.relative))
    return exact, near


def _told(names: tuple[str, ...], exact: list[Candidate], of: str) -> Permuted:
    """The first, and how the others compare."""
    (fault, group), *others = exact
    known = normal(group.build())
    alike = [other.name for other, theirs in others if normal(theirs.build()) == known]
    rivals = [other.name for other, _ in others if other.name not in alike]
    return Permuted(fault, tuple(alike), tuple(rivals), names, of, exact=True)
