"""What is computed is compared as it is computed: by the rule, not by a tolerance.

A layout may hold a tensor minus one. Adding one back rounds, so what was there and back need not be what it was; what
it is then, the rule says to the bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from math import prod
from typing import TypeGuard

from ...adapters.merged import Merged
from ...checkpoint.absent.union import Union, only, without
from ...checkpoint.hf_side import HfSide
from ...checkpoint.mapping import HfView, Naming
from ...checkpoint.mcore_side import McoreSide
from ...report import Observer, Silent
from ...tensors.counting import Rounded
from ...tensors.mapped import Renamed
from ...tensors.offset import Offset
from ...tensors.spec import Box, Reader, whole
from ..diagnosis.diagnose import diagnosed, same_geometry
from ..diagnosis.passes import Passes
from .compare import Comparison, Work, compare
from .fp8 import HALF_STEP, held_by_rule

Side = HfSide | McoreSide


def pair_by_rule(a: Side, b: Side) -> Work:
    """Two sides under their Hugging Face names, ready to be compared.

    What both hold minus one is compared so: one more would make equal what is not. What one of them holds minus one is
    equal by rule if either is what the rule makes of the other, in its dtype.
    """
    both = _less_one(a) & _less_one(b)
    views = [(side, other, _view(side, both, other)) for side, other in ((a, b), (b, a))]
    left, right = (_reader(side, other, view) for side, other, view in views)

    def run(threads: int, observer: Observer, values: bool) -> Comparison:
        found = compare(left, right, threads, observer, values=values)
        wrong, by_rule = {d.tensor for d in found.differences}, dict[str, Rounded]()
        steps = [step for reader in (left, right) for step in steps_of(reader)]
        merged = {n: count for step in steps for n, count in step.counted().items() if n not in wrong}
        for side, other, view in views:
            if view is None or not isinstance(side, McoreSide):
                continue
            counted, names = view.step.counted(), {name: side.naming.less_one[name] for name in view.step.names}
            by_rule |= {hf: counted[name] for name, hf in names.items() if hf not in wrong}
            by_rule |= _backwards(side, other, {name: hf for name, hf in names.items() if hf in wrong})
        others = [d for d in found.differences if d.tensor not in by_rule]
        found = replace(found, differences=others, by_rule=by_rule, merged=merged)
        for side, plain, other in ((a, right, b), (b, left, a)):
            if _is_fp8(side) and not _is_fp8(other):
                found = _by_fp8_rule(found, plain, side, threads)
        config = a.config if same_geometry(a.config, b.config) else None
        uncut = any(isinstance(side, HfSide) and side.uncut for side in (a, b))
        passes = Passes(threads, observer)
        return replace(found, diagnoses=diagnosed(left, right, config, found.differences, passes, uncut=uncut))

    return run


def _is_fp8(side: Side) -> TypeGuard[HfSide]:
    return isinstance(side, HfSide) and side.step is not None


def _by_fp8_rule(found: Comparison, plain: Reader, side: HfSide, threads: int) -> Comparison:
    """What was found, less what is FP8 made of the plain side by rule; of the rest it is said how far it is off."""
    rule = held_by_rule(plain, side, {d.tensor for d in found.differences if d.kind == "values"}, threads)
    for difference in found.differences:
        if difference.tensor in rule.errors:
            difference.note = (
                f"worst relative error {rule.errors[difference.tensor]:.4g}; rounding to FP8 makes at most "
                f"{HALF_STEP:.4g}"
            )
    kept = [d for d in found.differences if d.tensor not in rule.by_rule]
    return replace(found, differences=kept, by_fp8_rule=rule.by_rule)


def steps_of(reader: Reader) -> list[Merged]:
    """What merges adapters, among a Reader and all that are below it."""
    found = [reader] if isinstance(reader, Merged) else []
    return found + [step for below in getattr(reader, "below", ()) for step in steps_of(below)]


def _less_one(side: Side) -> set[str]:
    """The tensors that a side holds minus one, by their names on the Hub."""
    return set(side.naming.less_one.values()) if isinstance(side, McoreSide) else set()


def _view(side: Side, leave: Collection[str], other: Side) -> HfView | None:
    """A checkpoint under its Hugging Face names, in the dtypes that a Hugging Face side has of what may be float32."""
    if isinstance(side, HfSide):
        return None
    theirs = other.reader.specs if isinstance(other, HfSide) else {}
    names = side.model.float32_tensors(side.config)
    dtypes = {name: theirs[name].dtype for name in names if name in theirs}
    return side.to_hf(leave, dtypes, _theirs(other))


def _reader(side: Side, other: Side, view: HfView | None) -> Reader:
    if isinstance(side.reader, Merged):
        return side.reader.into(_theirs(other))
    return side.with_carried(view.reader) if view and isinstance(side, McoreSide) else side.reader


def _theirs(other: Side) -> dict[str, str]:
    """The dtypes that what an adapter changes has on the other side: its sums were rounded to those at once."""
    return {name: spec.dtype for name, spec in other.reader.specs.items()} if isinstance(other, HfSide) else {}


def _backwards(side: McoreSide, other: Side, rights: Mapping[str, str]) -> dict[str, Rounded]:
    """Of some tensors those that are what the rule makes of the other side's, in this one's layout.

    Args:
        side: holds them minus one.
        other: does not.
        rights: name in the layout -> name on the Hub.
    """
    theirs = other.as_hf if isinstance(other, McoreSide) else other.reader
    specs = side.reader.specs
    there = {left: right for left, right in rights.items() if right in theirs.specs}
    step = Offset(Renamed(theirs, there), there, -1.0, {left: specs[left].dtype for left in there})
    found = compare(side.reader, step, 1, Silent(), [whole(specs[left]) for left in there])
    wrong = {d.tensor for d in found.differences}
    return {rights[left]: count for left, count in step.counted().items() if left not in wrong}


def there_and_back(
    a: Reader, b: Reader, names: Iterable[str], amount: float, boxes: Collection[Box] | None = None
) -> Work:
    """A side and what came back of it, ready to be compared.

    Args:
        a: the side.
        b: what came back.
        names: of the tensors that were computed on both ways.
        amount: what was added on the way there.
        boxes: only these.
    """
    names = [name for name in names if name in a.specs]
    made = Offset(Offset(only(a, names), names, amount), names, -amount)
    expected = Union(without(a, names), made) if names else a

    def run(threads: int, observer: Observer, values: bool) -> Comparison:
        found = compare(expected, b, threads, observer, boxes, values=values)
        wrong = {d.tensor for d in found.differences}
        right = [name for name in names if name not in wrong]
        changed = compare(only(a, right), only(made, right), 1, Silent()).differences if right else []
        counts = {name: Rounded(prod(a.specs[name].shape)) for name in right}
        counts |= {d.tensor: counts[d.tensor]._replace(rounded=d.count) for d in changed}
        return replace(found, by_rule=counts)

    return run


def counting(work: Work, naming: Naming, step: Offset) -> Work:
    """A comparison under Hugging Face names, which also counts what was rounded on the way to them."""

    def run(threads: int, observer: Observer, values: bool) -> Comparison:
        found = work(threads, observer, values)
        wrong = {d.tensor for d in found.differences}
        names, counted = {name: naming.less_one[name] for name in step.names}, step.counted()
        counts = dict(found.by_rule)
        for name, hf in names.items():
            if hf not in wrong:
                more = found.by_rule.get(hf, Rounded()).rounded
                counts[hf] = Rounded(counted[name].elements, counted[name].rounded + more)
        return replace(found, by_rule=counts)

    return run
