"""What is undone: known permutations, by their names or because a model of the same base shows them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from ..checkpoint.absent.union import Union, without
from ..errors import MismatchError, OptionError, shown
from ..layouts.faults.fault import Fault, Group
from ..layouts.faults.known import FAULTS
from ..models.shared.config import ModelConfig
from ..report import Difference
from ..tensors.mapped import nearest
from ..tensors.spec import Reader
from ..verification.diagnosis.diagnosis import Diagnosis
from ..verification.diagnosis.permuted import TRAINED
from ..verification.diagnosis.sample import likeness, probes

HARMLESS = ("trained", "few")
"""Kinds of differences that a model of the same base has without any fault."""


class Undone(NamedTuple):
    """One permutation that is undone.

    Attributes:
        fault: which.
        groups: where.
        of: "A": the source is what the fault makes of the good model; "B": the other way round.
    """

    fault: Fault
    groups: list[Group]
    of: str = "A"

    @property
    def tensors(self) -> list[str]:
        """All that it concerns."""
        return [name for group in self.groups for name in group.names]


def by_names(names: Collection[str], config: ModelConfig) -> list[Undone]:
    """The permutations of --undo, everywhere in a model.

    Raises:
        OptionError: there is none of that name.
        MismatchError: this model has no tensors that it concerns.
    """
    found = []
    for name in names:
        if name not in FAULTS:
            raise OptionError(f"--undo {shown((name,))[1:-1]} is no known fault{nearest(name, FAULTS)}", _how_to_see())
        groups = list(FAULTS[name].groups(config))
        if not groups:
            raise MismatchError(
                f"--undo {shown(name)}: a {config.model_type} of these sizes has no tensors that it concerns",
                _how_to_see(),
            )
        found.append(Undone(FAULTS[name], groups))
    _refuse_twice(found)
    return found


def by_diagnosis(
    diagnoses: Sequence[Diagnosis], config: ModelConfig, differences: Iterable[Difference] = ()
) -> list[Undone]:
    """The permutations that a comparison with a model of the same base has shown.

    Args:
        diagnoses: what the comparison says.
        config: the source's integers.
        differences: all that it found.

    Raises:
        MismatchError: none was, or not exactly, or several fit, or something else is wrong that cannot be undone.
    """
    known = [one for one in diagnoses if one.name in FAULTS]
    _refuse_others([one for one in diagnoses if one.name not in FAULTS and one.name not in HARMLESS])
    _refuse_unexplained(differences, {name for one in diagnoses for name in one.tensors})
    for one in known:
        if not one.exact:
            raise MismatchError(
                f"{len(one.tensors)} tensors are as {one.name} makes them, but not exactly, as where they were trained",
                f"If that is what happened, say so: --undo {one.name}.",
            )
        if one.rivals:
            raise MismatchError(
                f"{len(one.tensors)} tensors are as {one.name} makes them, and as well as {', '.join(one.rivals)} does",
                f"If it is known which of them happened, say so: --undo {one.name}.",
            )
    if not known:
        raise MismatchError(
            "no known fault explains how the source differs from the model of --like",
            "There is nothing to undo; vlconv verify says how they differ.",
        )
    found = []
    for one in known:
        wrong, fault = set(one.tensors), FAULTS[one.name]
        groups = [group for group in fault.groups(config) if wrong & set(group.names)]
        found.append(Undone(fault, groups, one.of))
    _refuse_twice(found)
    return found


def _refuse_others(others: Sequence[Diagnosis]) -> None:
    if others:
        listed = "\n".join(f"  {len(one.tensors)} tensors: {shown(one.says, 400)}" for one in others[:5])
        raise MismatchError(
            f"more is wrong than can be undone:\n{listed}", "Nothing was written: a part repaired is not good, either."
        )


def _refuse_unexplained(differences: Iterable[Difference], explained: Collection[str]) -> None:
    """Other numbers, in another dtype too, or another shape, of which no diagnosis says anything."""
    left = [d.tensor for d in differences if (d.count or d.kind == "shape") and d.tensor not in explained]
    if left:
        raise MismatchError(
            f"more is wrong than can be undone: nothing explains {len(left)} tensors, {shown(left[0])} among them",
            "Nothing was written: a part repaired is not good, either. vlconv verify says how they differ.",
        )


def _refuse_twice(undone: Iterable[Undone]) -> None:
    """One tensor is repaired once: of two permutations the order would matter."""
    seen: dict[str, str] = {}
    for one in undone:
        for name in one.tensors:
            if name in seen:
                raise MismatchError(
                    f"{shown(name)} is concerned by {seen[name]} and by {one.fault.name}",
                    "Undo one of them, then the other one in what was written.",
                )
            seen[name] = one.fault.name


def repaired(reader: Reader, undone: Iterable[Undone]) -> Reader:
    """The tensors under the Hub's names, with the permutations undone."""
    undone = list(undone)
    made = [group.undone(reader) if one.of == "A" else group.made(reader) for one in undone for group in one.groups]
    return Union(without(reader, {name for one in undone for name in one.tensors}), *made)


def check_nearer(like: Reader, made: Reader, undone: Iterable[Undone]) -> None:
    """What --undo names must bring the tensors to where those of a model of the same base are.

    Raises:
        MismatchError: it does not.
    """
    for one in undone:
        held = [name for name in one.tensors if name in like.specs and len(like.specs[name].shape) > 1]
        unfit = next((name for name in held if like.specs[name].shape != made.specs[name].shape), None)
        if unfit or not held:
            what = f"has another shape of {shown(unfit)}" if unfit else f"has no tensor that {one.fault.name} concerns"
            raise MismatchError(
                f"the model of --like {what}, so nothing shows that --undo is right",
                "Give a model of the same base; without --like what --undo names is undone on its word alone.",
            )
        for name in held:
            if likeness(like, made, probes(like.specs[name])).relative >= TRAINED:
                raise MismatchError(
                    f"with {one.fault.name} undone, {shown(name)} is not near that of the model of --like",
                    "That is not what happened to it; vlconv verify says what it looks like.",
                )


def _how_to_see() -> str:
    return "vlconv verify GOOD BROKEN names what it recognises."
