"""A Megatron checkpoint, described as far as the steps of a conversion go that read no tensor."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import Any

from ..checkpoint.configure import Configured, configure, whole_shapes
from ..checkpoint.matched import match
from ..checkpoint.recognise import Recognised, recognise
from ..config.from_facts import Gathered, gather
from ..config.megatron_args import stated
from ..config.reference import side_files
from ..config.shape_facts import shape_facts, visible_traits
from ..errors import MissingLibrary, ReferenceFault, SourceError, VlconvError, shown
from ..formats import FORMATS
from ..formats.directory.locate import iteration_of
from ..formats.directory.statements import Stated, statements
from ..formats.opened import Opened
from ..models import MODELS
from ..models.shared.traits import OF_TOWER, VISIBLE
from ..options import McoreSource
from ..tensors.spec import TensorSpec
from .adapters import adapter_seen, check_adapter
from .commands import of_adapter, of_each, of_megatron
from .inspection import AdapterSeen, Inspection, ModelFound, Needed, Statement
from .manifest import made_by
from .models import of_config, of_facts
from .places import Place, file_bytes
from .topology import topology

LARGEST = 1 << 63
"""Of integers that are told as such."""


@dataclass
class _Steps:
    """What each step of opening has given, up to the one that failed.

    Attributes:
        opened, seen, known: of the steps; None where it failed, or one before it.
        fault: why the first one that failed did; None: it converts.
    """

    opened: Opened | None = None
    seen: Recognised | None = None
    known: Configured | None = None
    fault: VlconvError | None = None


def megatron(place: Place, layout: str | None) -> Inspection:
    """Describe a Megatron checkpoint.

    Args:
        place: where it lies.
        layout: the trainer's naming, where the user says it.
    """
    steps = _steps(place, layout)
    opened, seen = steps.opened, steps.seen
    fault = steps.fault or place.fault
    said = _stated(place, steps)
    tensors, whole = _tensors(steps)
    gathered = _gathered(steps)
    manifest, warnings = made_by(place.directory)
    adapter = adapter_seen(opened) if opened else None
    return Inspection(
        path=place.path,
        directory=place.directory,
        kind="megatron",
        title=FORMATS[_format(place, opened)].title,
        format=_format(place, opened),
        form=opened.form if opened else "",
        iteration=iteration_of(place.directory),
        iterations=place.iterations,
        layout=seen.layout.name if seen else "",
        trainers=seen.layout.trainers if seen else "",
        layout_because=seen.seen_by if seen else "",
        model=_model(steps, gathered),
        topology=topology(place.directory, opened, said),
        tensors=tensors,
        whole=whole,
        file_bytes=file_bytes(place.directory),
        ignored=opened.ignored if opened else {},
        unclaimed=opened.unclaimed if opened else {},
        states=tuple(map(_statement, said)),
        needs=_needs(steps, gathered),
        converts=steps.fault is None,
        why_not=fault.what if fault else "",
        hint=fault.hint if fault else "",
        adapter=adapter,
        manifest=manifest,
        next=_next(place, steps, adapter, manifest is not None),
        warnings=(*warnings, *(opened.warnings if opened else ())),
    )


def _steps(place: Place, layout: str | None) -> _Steps:
    asked = McoreSource(layout=layout)
    steps = _Steps()
    try:
        steps.opened = FORMATS[_format(place, None)].open(place.directory)
        steps.seen = recognise(steps.opened, layout)
        known = configure(steps.seen, asked)
        matched = match(steps.seen, known)
        whole = steps.opened.shapes(matched.splits)
        specs = steps.opened.specs
        matched.check_shapes({n: TensorSpec(n, whole[old], specs[old].dtype) for n, old in matched.found.items()})
        steps.known = known
        if steps.seen.adapter:
            check_adapter(steps.seen.adapter, matched, steps.opened)
    except MissingLibrary:
        raise
    except VlconvError as fault:
        steps.fault = fault
    return steps


def _format(place: Place, opened: Opened | None) -> str:
    """Of an open checkpoint what it is; else what its directory looks like."""
    return opened.format if opened else next(name for name, f in FORMATS.items() if f.holds(place.directory))


def _stated(place: Place, steps: _Steps) -> list[Stated]:
    """What it states of itself; files beside it where its own cannot be opened."""
    if steps.seen:
        return steps.seen.stated
    with suppress(SourceError):
        return statements(place.directory, steps.opened.args if steps.opened else dict)
    return []


def _statement(said: Stated) -> Statement:
    """What is stated, as it stands there: "untie_…" is the opposite of what config.json says."""
    facts = {fact.place: said.values.get(fact.place, fact.value) for fact in stated(said.values).values()}
    return Statement(said.where, len(said.values), {place: _plain(value) for place, value in facts.items()})


def _plain(value: object) -> Any:
    """A number, a flag or a list of numbers as it is; whatever else a stranger's file has there as safe text."""
    if type(value) is list and all(type(part) is int and abs(part) < LARGEST for part in value):
        return value
    numeric = type(value) is bool or (type(value) is int and abs(value) < LARGEST)
    return value if numeric or (type(value) is float and isfinite(value)) else shown(value)


def _tensors(steps: _Steps) -> tuple[tuple[TensorSpec, ...], bool]:
    """The tensors, and whether their shapes are those of whole ones."""
    opened, seen = steps.opened, steps.seen
    if opened is None:
        return (), True
    if seen is None:
        return tuple(opened.specs.values()), opened.whole is None
    specs = seen.specs
    try:
        shapes = whole_shapes(seen)
    except VlconvError:
        return tuple(spec._replace(name=name) for name, spec in specs.items()), opened.whole is None
    return tuple(TensorSpec(name, shape, specs[name].dtype) for name, shape in shapes.items()), True


def _gathered(steps: _Steps) -> Gathered | None:
    """What a checkpoint shows and states of its model, where no config describes it."""
    seen = steps.seen
    if seen is None or steps.known or seen.layout.is_half:
        return None
    with suppress(VlconvError):
        return gather(
            whole_shapes(seen),
            [(said.where, said.values) for said in seen.stated],
            tower=seen.layout.tower,
            tie_shown=not seen.opened.tied_copy,
        )
    return None


def _model(steps: _Steps, gathered: Gathered | None) -> ModelFound | None:
    if steps.known:
        return of_config(steps.known.whole)
    if gathered:
        return of_facts([gathered.model.model_type], gathered.known.values)
    if steps.seen is None:
        return None
    return _by_shapes(steps.seen)


def _by_shapes(seen: Recognised) -> ModelFound | None:
    """The model of a checkpoint that is half of one, whose words contradict it, or that several models may be."""
    tower = seen.layout.tower
    visible = visible_traits(seen.names, tower)
    half = seen.layout.is_half
    traits = [trait for trait in VISIBLE if not (half and trait in OF_TOWER)]
    listed = seen.layout.models if half else MODELS
    models = [n for n in listed if all(getattr(MODELS[n].traits, trait) is visible[trait] for trait in traits)]
    if not models:
        return None
    facts: Mapping[str, Any] = {}
    with suppress(VlconvError):
        shapes = {spec.name: spec.shape for spec in _tensors(_Steps(seen.opened, seen))[0]}
        facts = shape_facts(shapes, tower, gated=MODELS[models[0]].traits.gated_attention)
    return of_facts(models, facts)


def _needs(steps: _Steps, gathered: Gathered | None) -> Needed:
    known = steps.known
    if known is None:
        return Needed(unknown=tuple(gathered.missing) if gathered else (), files=tuple(side_files(None).missing))
    found = known.reference
    missing: tuple[str, ...] = ()
    with suppress(SourceError):
        missing = tuple(side_files(found.directory, known.model.traits.tower).missing)
    because = found.said if found.directory or not found.release else f"{found.said} and {found.release}"
    return Needed(found.directory, because, tuple(known.unproven), (), missing)


def _next(place: Place, steps: _Steps, adapter: AdapterSeen | None, made: bool) -> tuple[str, ...]:
    """How to go on: converted, or with a reference, a base or an alpha, or with one of several."""
    number = place.asked
    if place.fault:  # the directory does not say which is meant
        described = next(found for found in place.iterations if found.described)
        numbers = [found.number for found in place.iterations]
        if described.number is None or numbers.count(described.number) > 1:
            return of_each([place.path / found.name for found in place.iterations])
        number = described.number
    if adapter and (not adapter.base_here or adapter.alpha is None):
        return of_adapter(place.path, number, base=not adapter.base_here, alpha=adapter.alpha is None)
    half = steps.seen is not None and steps.seen.layout.is_half
    if steps.fault is None or isinstance(steps.fault, ReferenceFault) or half:
        carry = next(m.vision_prefix for m in MODELS.values() if m.traits.tower) if half else ""
        return of_megatron(place.path, number, reference=steps.fault is not None, carry=carry, made=made)
    return ()
