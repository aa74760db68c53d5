"""What went wrong where two sides differ: known faults that fit exactly, else how the difference looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ...checkpoint.absent.mtp import with_layers
from ...layouts.faults.known import FAULTS
from ...models.shared.config import ModelConfig
from ...report import Difference
from ...tensors.spec import Reader
from .computed import HALF_STEPS, computed
from .diagnosis import Diagnosis
from .elsewhere import Others, another
from .looks import KINDS, Look, look
from .permuted import Permuted, permuted
from .sample import likeness, sampled

Found = Iterator[tuple[Diagnosis, Mapping[str, str]]]
"""Explanations, each with a note for some of its tensors."""


def same_geometry(a: ModelConfig, b: ModelConfig) -> bool:
    """Whether two configs describe tensors of one shape, whatever heads they have at the end."""
    ours, theirs = (replace(with_layers(c, 0), text=replace(c.text, mtp=0, tied=False, headless=False)) for c in (a, b))
    return ours == theirs


def diagnosed(a: Reader, b: Reader, config: ModelConfig | None, differences: Iterable[Difference]) -> list[Diagnosis]:
    """What went wrong; the differences are given notes and how far they are off.

    Args:
        a, b: the two sides, under the Hub's names.
        config: the integers of both; None: they have not the same.
        differences: that were found; those of values and dtypes are looked at.
    """
    wrong = {d.tensor: d for d in differences if d.count and _both(a, b, d)}
    left = dict(wrong)
    found: list[Diagnosis] = []
    values = [name for name, d in wrong.items() if d.kind == "values"]
    _take(found, left, _computed(a, b, left))
    if config is not None:
        _take(found, left, _permuted(a, b, config, [name for name in values if name in left]))
    others = Others(a)
    _take(found, left, _elsewhere(others, b, left))
    looks = {name: look(a, b, d) for name, d in left.items() if d.kind == "values"}
    _take(found, left, _looks(looks, wrong))
    for name, difference in wrong.items():
        if difference.relative is None:
            difference.relative = likeness(a, b, sampled(a.specs[name])).relative
    return found


def _both(a: Reader, b: Reader, d: Difference) -> bool:
    """Whether both sides have numbers of that name that can be computed with."""
    if d.tensor not in a.specs or d.tensor not in b.specs or d.kind not in ("values", "dtype"):
        return False
    return {a.specs[d.tensor].dtype, b.specs[d.tensor].dtype} <= {*HALF_STEPS}


def _take(found: list[Diagnosis], left: dict[str, Difference], more: Found) -> None:
    """Add diagnoses, each with the notes for its tensors, and put those of one name together."""
    for one, notes in list(more):
        known = next((diagnosis for diagnosis in found if diagnosis.is_like(one)), None)
        if known is None:
            found.append(one)
        else:
            known.add(one)
        for name in one.tensors:
            if difference := left.pop(name, None):
                difference.note = ", ".join(filter(None, [difference.note, notes.get(name, "")]))


def _computed(a: Reader, b: Reader, left: Mapping[str, Difference]) -> Found:
    for name in left:
        if said := computed(a, b, name):
            yield Diagnosis("arithmetic", said, True, [name]), {name: said}


def _permuted(a: Reader, b: Reader, config: ModelConfig, names: list[str]) -> Found:
    wrong = set(names)
    for one in permuted(a, b, config, names):
        tensors = [name for name in one.names if name in wrong]
        yield (
            Diagnosis(
                one.fault.name,
                one.fault.says,
                one.exact,
                tensors,
                sum(len(group.names) for group in FAULTS[one.fault.name].groups(config)),
                one.of,
                one.others,
                one.rivals,
                () if one.exact else (one.relative, one.relative),
            ),
            dict.fromkeys(tensors, _note(one)),
        )


def _note(one: Permuted) -> str:
    rivals = f" (or {', '.join(one.rivals)})" if one.rivals else ""
    return f"{one.fault.name}{rivals}, exactly" if one.exact else f"{one.fault.name}, nearly"


def _elsewhere(others: Others, b: Reader, left: Mapping[str, Difference]) -> Found:
    for name in left:
        if said := another(others, b, name):
            yield (
                Diagnosis("another tensor", "they are another tensor of the model", True, [name]),
                {name: f"is {said}"},
            )


def _looks(looks: Mapping[str, Look], wrong: Mapping[str, Difference]) -> Found:
    for name, found in looks.items():
        wrong[name].relative = relative = found.likeness.relative
        yield Diagnosis(found.kind, KINDS[found.kind], False, [name], relative=(relative, relative)), {name: found.says}
