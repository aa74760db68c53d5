"""curves.png: seconds, CPU seconds and memory over what grows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .plot import DARK, FONT, OURS, THEIRS, WIDTH
from .summary import Json, fewest, most
from .table import fitted, per

MARKS = ((OURS, "o"), (THEIRS, "s"))
MEMORY = (("#009E73", "o"), ("#CC79A7", "s"))
"""Green and purple of Okabe and Ito."""
UNITS = {"GB": "GB", "thread": "threads", "tensor": "tensors", "chunk": "chunks", "file": "files"}


def plot(documents: Sequence[Json], path: Path) -> Path | None:
    """Draw a row for each thing that grows: time of one command, of the other, memory of both.

    Returns:
        where it went, or None where there are no curves.
    """
    rows = [
        [curve for curve in document["curves"] if curve["unit"] == unit] for document in documents for unit in UNITS
    ]
    rows = [row for row in rows if row]
    if not rows:
        return None
    with mpl.rc_context(FONT):
        figure = Figure(figsize=(WIDTH, 0.5 + 2.2 * len(rows)), facecolor="white", layout="constrained")
        for axes, curves in zip(figure.subplots(len(rows), 3, squeeze=False), rows, strict=True):
            for left, curve in zip(axes, curves, strict=False):
                _time(left, curve)
            _memory(axes[2], curves)
        for axes in figure.axes:
            axes.set_visible(axes.has_data())
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=2, frameon=False)
        figure.savefig(path, dpi=200)
    return path


def _time(axes: Any, curve: Json) -> None:
    """Points, and the line through them; from point to point where there is none."""
    xs = [point["x"] for point in curve["points"]]
    for (color, mark), what, name in zip(MARKS, ("seconds", "cpu"), ("seconds", "CPU seconds"), strict=True):
        ys = [fewest(point["runs"], what) for point in curve["points"]]
        axes.plot(xs, ys, mark, color=color, label=name)
        if found := fitted(curve, what):
            axes.plot([0, max(xs)], [found.at(0), found.at(max(xs))], "--", color=color, linewidth=1)
        else:
            axes.plot(xs, ys, "-", color=color, linewidth=1)
    slope = per(curve, fitted(curve, "cpu"))
    _named(axes, [curve], f"{curve['name']}\n{f'CPU {slope}' if slope else ''}")


def _memory(axes: Any, curves: Sequence[Json]) -> None:
    for (color, mark), curve in zip(MEMORY, curves, strict=False):
        megabytes = [most(point["runs"], "anonymous") / 1e6 for point in curve["points"]]
        name = curve["name"].partition(",")[0]
        axes.plot([p["x"] for p in curve["points"]], megabytes, f"{mark}-", color=color, linewidth=1, label=name)
    axes.legend(frameon=False, fontsize=9)
    _named(axes, curves, "memory, MB\n")


def _named(axes: Any, curves: Sequence[Json], title: str) -> None:
    axes.set_title(title, fontsize=9.5, loc="left")
    axes.set_xlabel(UNITS[curves[0]["unit"]], labelpad=1)
    axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    axes.xaxis.set_major_formatter(lambda x, _: f"{x / 1000:g} k" if x >= 10_000 else f"{x:g}")
    if curves[0]["unit"] == "thread":
        axes.set_xticks([point["x"] for point in curves[0]["points"]])
    axes.grid(color="#dddddd", linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.tick_params(colors=DARK)
