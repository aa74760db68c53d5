"""Tables of what was measured, out of bench.json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import MARKDOWN, SIMPLE_HEAD, Box
from rich.table import Table

from .fit import Line, line
from .summary import Json, fewest, figures, middle, most

SCALE = {"GB": (1.0, "s"), "tensor": (1e6, "µs"), "chunk": (1e6, "µs"), "file": (1e3, "ms")}
"""What x counts -> how many of a unit are a second."""


def tables(document: Json, markdown: bool = False) -> Iterator[Table]:
    """Those for which something was measured."""
    style = MARKDOWN if markdown else SIMPLE_HEAD
    if document["comparisons"]:
        yield _comparisons(document["comparisons"], style)
    if document.get("starts"):
        yield _starts(document["starts"], style)
    if document.get("planning"):
        yield _planning(document["planning"], style)
    if document["curves"]:
        yield _curves(document["curves"], style)


def heading(document: Json) -> str:
    """What was measured, where, with what."""
    machine, model = document["machine"], document.get("model")
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version)
    where = (
        f"{machine['cores']} cores ({machine['processor'] or 'unknown'}), {machine['memory'] / 1e9:.0f} GB of memory, "
        f"{machine['file_system']}, Linux {machine['kernel']}, Python {machine['python']}, {libraries}; "
        f"vlconv {machine['vlconv']}; {document['date']}; {document['command']}"
    )
    blind = [] if machine["descendants"] else ["memory is of each process alone: this kernel lists no descendants"]
    left_out = [f"left out: {name} ({why})" for name, why in document["left_out"].items()]
    if model is None:
        return "\n".join([where, *blind, *left_out])
    what = (
        f"{model['name']}: geometry of {model['release']}, {model['layers']} layers, {model['tensors']} tensors, "
        f"{model['bytes'] / 1e9:.2f} GB in safetensors files ({model['hf_files']}); torch_dist in "
        f"{model['mcore_files']} files, written by {model['written_by']}"
    )
    return "\n".join([where, *blind, *left_out, what])


def _comparisons(comparisons: Sequence[Json], style: Box) -> Table:
    columns = ("", "cache", "× baseline, median (from, to)", "seconds", "GB/s", "CPU s", "core-s/GB", "anonymous MB")
    table = _table(style, *columns)
    for comparison in comparisons:
        for entry in (comparison["baseline"], *comparison["contenders"]):
            threads = f" --threads {entry['threads']}" if entry["threads"] else ""
            ours = not entry["rival"] and entry is not comparison["baseline"]
            name = f"{entry['name']} {comparison['name']}{threads}" if ours else entry["name"]
            table.add_row(name, _cache(comparison), *_cells(comparison, entry))
        table.add_section()
    return table


def _cache(comparison: Json) -> str:
    """Cold only as far as the system forgets when it is told to."""
    cached = comparison["cached_before_cold_runs"] or 0
    return comparison["cache"] + (f", {100 * cached:.0f} % cached" if cached > 0.005 else "")


def _cells(comparison: Json, entry: Json) -> list[str]:
    if entry["failed"]:
        return [f"failed: {entry['failed'][:60]}", *[""] * 5]
    f = figures(comparison, entry)
    ratio = f"{f.ratio:.2f} ({f.lowest:.2f}, {f.highest:.2f})" if entry is not comparison["baseline"] else "1"
    numbers = (f"{f.seconds:.2f}", f"{f.gb_per_s:.2f}", f"{f.cpu:.2f}", f"{f.cpu_per_gb:.2f}")
    return [ratio, *numbers, f"{f.anonymous / 1e6:.0f}"]


def _starts(starts: Sequence[Json], style: Box) -> Table:
    table = _table(style, "start", "seconds, median (from, to)", "CPU s", "anonymous MB")
    for entry in starts:
        seconds = [what(entry["runs"], "seconds") for what in (middle, fewest, most)]
        table.add_row(
            entry["name"],
            "{:.2f} ({:.2f}, {:.2f})".format(*seconds),
            f"{middle(entry['runs'], 'cpu'):.2f}",
            f"{most(entry['runs'], 'anonymous') / 1e6:.0f}",
        )
    return table


def _planning(planning: Json, style: Box) -> Table:
    """In the parent: what is left of the seconds when a child runs no more."""
    runs = planning["runs"]
    parent = [{"seconds": run["seconds"] - run["child_seconds"], "cpu": run["cpu"] - run["own_cpu"]} for run in runs]
    title = f"planning, {planning['chunks']:,} chunks, .metadata of {planning['metadata_bytes'] / 1e6:.0f} MB"
    table = _table(style, title, "seconds", "CPU s", "anonymous MB")
    own, child = most(runs, "own_anonymous"), most(runs, "child_anonymous")
    for name, seconds, cpu, memory in (
        ("parent", middle(parent, "seconds"), middle(runs, "own_cpu"), own),
        ("parsing child", middle(runs, "child_seconds"), middle(parent, "cpu"), child),
        ("together", middle(runs, "seconds"), middle(runs, "cpu"), most(runs, "anonymous")),
    ):
        table.add_row(name, f"{seconds:.2f}", f"{cpu:.2f}", f"{memory / 1e6:.0f}")
    return table


def _curves(curves: Sequence[Json], style: Box) -> Table:
    table = _table(
        style, "what grows", "seconds at", "CPU for one more", "off the line", "seconds for one more", "MB at the ends"
    )
    for curve in curves:
        points = curve["points"]
        seconds = "; ".join(f"{fewest(p['runs'], 'seconds'):.2f} at {_short(p['x'], 4)}" for p in points)
        ends = [f"{most(points[i]['runs'], 'anonymous') / 1e6:.0f}" for i in (0, -1)]
        cpu, wall = (fitted(curve, what) for what in ("cpu", "seconds"))
        off = f"{100 * cpu.share:.0f} %" if cpu else ""
        table.add_row(curve["name"], seconds, per(curve, cpu), off, per(curve, wall), ", ".join(ends))
    return table


def fitted(curve: Json, what: str) -> Line | None:
    """The line through the least of each point; None where x counts threads, or there is one point."""
    if curve["unit"] not in SCALE:
        return None
    return line([p["x"] for p in curve["points"]], [fewest(p["runs"], what) for p in curve["points"]])


def per(curve: Json, found: Line | None) -> str:
    """A slope in words: "12.3 µs per chunk"."""
    if found is None:
        return ""
    scale, unit = SCALE[curve["unit"]]
    return f"{_short(scale * found.slope, 3)} {unit} per {curve['unit']}"


def _short(number: float, digits: int) -> str:
    """So many digits, and no exponent."""
    return f"{float(f'{number:.{digits}g}'):,.12g}"


def _table(style: Box, *columns: str) -> Table:
    table = Table(box=style)
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number else "left")
    return table


def plain(document: Json, markdown: bool, console: Any) -> None:
    """Print them all."""
    console.print(heading(document), highlight=False, markup=False)
    for table in tables(document, markdown):
        console.print(table)
