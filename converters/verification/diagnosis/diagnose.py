"""What went wrong where two sides differ: known faults that fit exactly, else how the difference looks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import TypeVar

from ...checkpoint.absent.mtp import with_layers
from ...models.shared.config import ModelConfig
from ...report import Difference
from ...tensors.spec import Reader
from .computed import HALF_STEPS, Made, computed
from .diagnosis import Diagnosis
from .elsewhere import Others, another
from .looks import KINDS, WHOLE, Look, look
from .passes import Passes
from .permuted import Permuted, permuted
from .ranks import of_one_rank
from .sample import likeness, sampled
from .vocabulary import of_tokens

What = TypeVar("What")
Seen = list[tuple[str, What]]

SEVERAL = 12
"""Factors or constants that are told one by one; of more it is said once that there are such."""

OLD = "as if of another iteration"
"""What is said of the part of a rank, but where its numbers are unlike any other iteration's."""

Found = Iterator[tuple[Diagnosis, Mapping[str, str]]]
"""Explanations, each with a note for some of its tensors."""


def same_geometry(a: ModelConfig, b: ModelConfig) -> bool:
    """Whether two configs describe tensors of one shape, whatever rows of vocabulary and heads at the end they have."""
    ours, theirs = (
        replace(with_layers(c, 0), text=replace(c.text, mtp=0, tied=False, headless=False, vocab=0)) for c in (a, b)
    )
    return ours == theirs


def diagnosed(
    a: Reader,
    b: Reader,
    config: ModelConfig | None,
    differences: Iterable[Difference],
    passes: Passes | None = None,
    *,
    uncut: bool = False,
) -> list[Diagnosis]:
    """What went wrong; the differences are given notes and how far they are off.

    Args:
        a, b: the two sides, under the Hub's names.
        config: the integers of both; None: they have not the same.
        differences: that were found.
        passes: how they are looked at; None: one after another, and nobody is told.
        uncut: a side has more rows of vocabulary than its config.json counts.
    """
    passes, differences = passes or Passes(), list(differences)
    wrong = {d.tensor: d for d in differences if d.count and _both(a, b, d)}
    left = dict(wrong)
    found: list[Diagnosis] = []
    _take(found, left, ((one, {}) for one in of_tokens(a, b, differences, passes, uncut=uncut)))
    values = [name for name, d in wrong.items() if d.kind == "values"]
    each = partial(passes.over, nbytes=lambda name: a.specs[name].nbytes)
    _take(found, left, _computed(each([*left], look=lambda name: computed(a, b, name))))
    if config is not None:
        _take(found, left, _permuted(a, b, config, [name for name in values if name in left], passes))
    others = Others(a)
    _take(found, left, _elsewhere(each([*left], look=lambda name: another(others, b, name))))
    unlike = [name for name, d in left.items() if d.kind == "values"]
    _take(found, left, _looks(a, each(unlike, look=lambda name: look(a, b, wrong[name])), wrong))
    rest = [name for name, d in wrong.items() if d.relative is None]
    for name, off in each(rest, look=lambda name: likeness(a, b, sampled(a.specs[name])).relative):
        wrong[name].relative = off
    return found


def _both(a: Reader, b: Reader, d: Difference) -> bool:
    """Whether both sides have numbers of that name that can be computed with."""
    if d.tensor not in a.specs or d.tensor not in b.specs or d.kind not in ("values", "dtype"):
        return False
    return {a.specs[d.tensor].dtype, b.specs[d.tensor].dtype} <= {*HALF_STEPS}


def _take(found: list[Diagnosis], left: dict[str, Difference], more: Found) -> None:
    """Add diagnoses, each with the notes for its tensors, and put those that say the same together."""
    known = {one.key: one for one in found}
    for one, notes in list(more):
        if one.key in known:
            known[one.key].add(one)
        else:
            found.append(one)
            known[one.key] = one
        for name in one.tensors:
            if difference := left.pop(name, None):
                difference.note = ", ".join(filter(None, [difference.note, notes.get(name, "")]))


def _computed(seen: Seen[Made | None]) -> Found:
    several = len({made.says for _, made in seen if made and made.each}) > SEVERAL
    for name, made in seen:
        if made:
            says = made.each if several and made.each else made.says
            yield Diagnosis("arithmetic", says, made.exact, [name]), {name: made.says}


def _permuted(a: Reader, b: Reader, config: ModelConfig, names: list[str], passes: Passes) -> Found:
    wrong, concerns = set(names), dict[str, int]()
    for one in permuted(a, b, config, names, passes):
        tensors = [name for name in one.names if name in wrong]
        if one.fault.name not in concerns:
            concerns[one.fault.name] = sum(len(group.names) for group in one.fault.groups(config))
        yield (
            Diagnosis(
                one.fault.name,
                one.fault.says,
                one.exact,
                tensors,
                concerns[one.fault.name],
                one.of,
                one.others,
                one.rivals,
                () if one.exact else (one.relative, one.relative),
                one.fault.known_of,
            ),
            dict.fromkeys(tensors, _note(one)),
        )


def _note(one: Permuted) -> str:
    rivals = f" (or {', '.join(one.rivals)})" if one.rivals else ""
    return f"{one.fault.name}{rivals}, exactly" if one.exact else f"{one.fault.name}, nearly"


def _elsewhere(seen: Seen[str]) -> Found:
    for name, said in seen:
        if said:
            yield (
                Diagnosis("another tensor", "they are another tensor of the model", True, [name]),
                {name: f"is {said}"},
            )


def _looks(a: Reader, seen: Seen[Look], wrong: Mapping[str, Difference]) -> Found:
    part = of_one_rank(a.specs, [name for name, _ in seen]) if seen else ""
    for name, found in seen:
        wrong[name].relative = relative = found.likeness.relative
        kind, says = found.kind, KINDS[found.kind]
        if found.rank:
            says += f", the part of {found.rank}, {OLD}"
        elif part and kind in WHOLE:
            kind, says = "rank", f"{says}: {part}" + f", {OLD}" * (kind != "unrelated")
        yield Diagnosis(kind, says, False, [name], relative=(relative, relative)), {name: found.says}
