"""What inspect shows: facts, a tree of blocks and the next command; or the tensors that match."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from vlconv.blocks import tree
from vlconv.converters import sized
from vlconv.render import message, one_line
from vlconv.sizes import count

if TYPE_CHECKING:
    from vlconv.converters import Inspection

LISTED = 4
"""Of several that one fact names, those that are shown; the JSON document has them all."""

ITERATIONS = 8
"""Of many, the latest that are shown; the tracker's and the one that is described are shown in any case."""

Facts = Iterator[tuple[str, str]]


def show(found: Inspection, pattern: str | None, *, as_json: bool) -> None:
    """Show it on stdout.

    Args:
        found: by inspect.
        pattern: only the tensors whose name matches, one a line; None: everything else.
        as_json: one document with all of it, or with all but the tensors that do not match.
    """
    if as_json:
        sys.stdout.write(json.dumps(found.as_dict(pattern or "*"), indent=2, allow_nan=False, default=str) + "\n")
    elif pattern is not None:
        _list(found, pattern)
    else:
        _describe(found, _console())


def _console() -> Console:
    wide = None if sys.stdout.isatty() else 1000  # a pipe gets lines as long as they are
    return Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=wide)


def _list(found: Inspection, pattern: str) -> None:
    rows = [
        (one_line(t.name), t.dtype, str(list(t.shape)), str(t.nbytes) if not sys.stdout.isatty() else sized(t.nbytes))
        for t in found.matching(pattern)
    ]
    if not sys.stdout.isatty():
        sys.stdout.writelines("\t".join(row) + "\n" for row in rows)
        return
    console = _console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("tensor", overflow="fold")
    for title in ("dtype", "shape", "bytes"):
        table.add_column(title, no_wrap=True, justify="right" if title == "bytes" else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)
    console.print(f"{len(rows)} of {len(found.tensors)} tensors match")


def _describe(found: Inspection, console: Console) -> None:
    facts = [(label, message(text)) for label, text in _facts(found)]
    wide = max(len(label) for label, _ in facts)
    for label, text in facts:
        _fact(console, label, text, wide)
    if found.blocks:
        console.print()
        for branch in tree(found.blocks, console.width):
            console.print(branch, soft_wrap=True)
    for warning in found.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), message(warning)), soft_wrap=True)
    if found.next:
        console.print()
        for line in found.next:  # whole, whatever the width: it is to be pasted
            console.print(Text(one_line(line), "bold"), soft_wrap=True)


def _fact(console: Console, label: str, text: str, wide: int) -> None:
    """A label, and its text folded beside it."""
    room = max(20, console.width - wide - 2)
    lines = [piece for line in text.split("\n") for piece in _folded(line, room)]
    for number, line in enumerate(lines):
        console.print(Text.assemble((f"{'' if number else label:<{wide}}  ", "dim"), line), soft_wrap=True)


def _folded(line: str, room: int) -> list[str]:
    """A line in pieces of that width, cut at spaces where there are any."""
    pieces = [""]
    for word in line.split(" "):
        longer = f"{pieces[-1]} {word}" if pieces[-1] else word
        if cell_len(longer) <= room or not pieces[-1]:
            pieces[-1] = longer
        else:
            pieces.append(word)
    return pieces


def _facts(found: Inspection) -> Facts:
    form = f", {found.form}" if found.form else ""
    yield "is", f"{found.title}{form}"
    if found.directory != found.path:
        yield "at", str(found.directory)
    if found.iterations:
        yield "iterations", "\n".join(_iterations(found))
    elif found.iteration is not None:
        yield "iteration", str(found.iteration)
    if found.layout:
        yield "layout", f"{found.layout} ({found.trainers}), because {found.layout_because}"
    if found.model:
        yield "model", f"{found.model.model_type}: {found.model.words}" if found.model.words else found.model.model_type
        if found.model.release:
            yield "release", _release(found)
    if found.topology:
        yield "written at", ", ".join(_topology(found))
    yield from _amounts(found)
    yield from _adapter(found)
    yield from _origin(found)
    yield "converts", "yes, by its metadata" if found.converts else f"no: {found.why_not}"
    if found.hint:
        yield "", found.hint


def _iterations(found: Inspection) -> Iterable[str]:
    latest = found.iterations[-ITERATIONS:]
    if len(latest) < len(found.iterations):
        yield f"{len(found.iterations)}, from {one_line(found.iterations[0].name)} on; of these"
    for one in found.iterations:
        if one not in latest and not one.tracked and not one.described:
            continue
        marks = ["the tracker's"] * one.tracked + ["described here"] * (one.described and len(found.iterations) > 1)
        yield one_line(one.name) + (f"  ({', '.join(marks)})" if marks else "")


def _release(found: Inspection) -> str:
    assert found.model
    differs = [f"{place} {ours} instead of {theirs}" for place, (ours, theirs) in found.model.differs.items()]
    if not differs:
        return f"the sizes of {found.model.release}"
    return f"nearest: {found.model.release}, differs in {_some(differs)}"


def _topology(found: Inspection) -> Iterable[str]:
    for name, size in found.topology.items():
        ranks = f"by {size} rank{'s' * (size > 1)}"
        yield ranks if name == "ranks_that_wrote" else f"{name.replace('_', ' ').upper()} {size}"


def _amounts(found: Inspection) -> Facts:
    if found.tensors:
        shapes = "" if found.whole else ", in a rank's own shapes"
        total = found.parameters or 1
        kinds = [f"{name} {100 * elements / total:.3g}%" for name, elements in found.dtypes.items()]
        yield "tensors", f"{len(found.tensors)}, {count(found.parameters)} parameters{shapes}"
        yield "dtypes", ", ".join(kinds if len(kinds) > 1 else found.dtypes)
    yield "bytes", f"{sized(found.weight_bytes)} of weights, {sized(found.file_bytes)} of files"
    if found.ignored:
        yield "ignored", ", ".join(f"{number} {kind}" for kind, number in sorted(found.ignored.items()))
    if found.unclaimed:
        listed = [f"{sized(nbytes)} in {one_line(file)}" for file, nbytes in found.unclaimed.items()]
        yield "unclaimed", _some(listed)


def _adapter(found: Inspection) -> Facts:
    adapter = found.adapter
    if adapter is None:
        return
    ranks = ", ".join(map(str, adapter.ranks))
    targets = _some([one_line(target) for target in adapter.targets])
    alpha = "alpha unknown" if adapter.alpha is None else f"alpha {adapter.alpha:g}" + ", rslora" * adapter.rslora
    base = "its base is in the checkpoint, too" if adapter.base_here else "without its base"
    elements = f"{adapter.modules} modules ({targets}), {count(adapter.parameters)} parameters"
    yield (
        "adapter",
        f"LoRA in {adapter.title}: {elements}, rank {ranks}, {alpha} ({one_line(adapter.alpha_from)}); {base}",
    )


def _origin(found: Inspection) -> Facts:
    if found.states:
        yield "states", "\n".join(_states(found))
    needs = found.needs
    if found.kind == "megatron" and needs.because:
        where = f"{needs.directory} ({needs.because})" if needs.directory else needs.because
        yield "config from", where
    if needs.rests_on:
        yield "not shown", f"by the checkpoint, only by that: {_grouped(needs.rests_on)}"
    if needs.unknown:
        yield "unknown", f"a reference has to give {_grouped(needs.unknown)}"
    if needs.files:
        yield "missing", f"{', '.join(needs.files)}: no such files lie beside it"
    if found.manifest is not None:
        yield "vlconv.json", _made(found.manifest)


def _made(manifest: Mapping[str, Any]) -> str:
    source = manifest["source"].get("given") if isinstance(manifest["source"], dict) else manifest["source"]
    by = f"made by vlconv {one_line(manifest['vlconv'])} {one_line(manifest['command'])} from {one_line(source)}"
    return f"{manifest['files']} files, {sized(manifest['bytes'])}, {by}"


def _states(found: Inspection) -> Iterable[str]:
    for said in found.states:
        listed = [f"{one_line(name)} {one_line(value)}" for name, value in said.facts.items()]
        told = f": {_some(listed)}" if listed else ", none of them about the model's sizes"
        yield f"{said.where}, {said.entries} values{told}"


def _grouped(places: Iterable[str]) -> str:
    """Places in config.json, those of one section together: "tie_word_embeddings; text_config: rope_theta, …"."""
    sections: dict[str, list[str]] = {}
    for place in places:
        section, _, field = place.partition(".")
        sections.setdefault(section if field else "", []).append(field or place)
    return "; ".join(
        f"{section}: {', '.join(fields)}" if section else ", ".join(fields) for section, fields in sections.items()
    )


def _some(listed: Sequence[str]) -> str:
    more = f" and {len(listed) - LISTED} more" if len(listed) > LISTED else ""
    return ", ".join(listed[:LISTED]) + more
