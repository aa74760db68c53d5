"""bench.png: seconds beside the baseline's, and memory, of vlconv and of other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from .summary import Figures, Json, figures

OURS, THEIRS, DARK = "#0072B2", "#E69F00", "#333333"
"""Blue and orange of Okabe and Ito, told apart by every eye."""

FONT = {"font.size": 10, "font.family": "DejaVu Sans", "text.color": DARK, "axes.labelcolor": DARK}
WIDTH = 8.6
"""Inches. README shows some 850 pixels: a point of text is then a pixel and a third."""


class Bar(NamedTuple):
    """A row of the plot."""

    label: str
    figures: Figures
    rival: bool


def plot(documents: Sequence[Json], path: Path) -> Path | None:
    """Draw a section for each bench.json; returns where it went, or None where nothing is compared."""
    sections = [(document, rows) for document in documents if (rows := list(bars(document)))]
    if not sections:
        return None
    heights = [len(rows) + 1.2 for _, rows in sections]
    with mpl.rc_context(FONT):
        figure = Figure(figsize=(WIDTH, 0.5 + 0.4 * sum(heights)), facecolor="white", layout="constrained")
        axes = figure.subplots(len(sections), 2, sharey="row", squeeze=False, height_ratios=heights)
        for (left, right), (document, rows) in zip(axes, sections, strict=True):
            where = _where(document) if len(sections) > 1 else ""
            _ratios(left, rows, f"{where}time, × cp (verify: × cat)")
            _memory(right, rows, "memory, MB")
            left.set_yticks(range(len(rows)), [row.label for row in rows])
            left.invert_yaxis()
        handles = [Patch(color=OURS, label="vlconv"), Patch(color=THEIRS, label="others")]
        figure.legend(handles=handles, loc="outside upper left", ncols=2, frameon=False)
        figure.savefig(path, dpi=200)
    return path


def bars(document: Json) -> Iterator[Bar]:
    """vlconv with the threads that it takes by itself, and other programs."""
    for comparison in document["comparisons"]:
        cold = ", cold" if comparison["cache"] == "cold" else ""
        for entry in comparison["contenders"]:
            if entry["runs"] and not entry["failed"] and not entry["threads"]:
                long = entry["name"] if entry["rival"] else comparison["name"]
                name = long.replace(" (", "\n(").replace(" --tp", "\n--tp")
                yield Bar(f"{name}{cold}", figures(comparison, entry), entry["rival"])


def _where(document: Json) -> str:
    """What tells one section from another."""
    model = f"{document['model']['name']}, " if "model" in document else ""
    return f"{model}{document['machine']['cores']} cores, {document['machine']['file_system']}\n"


def _ratios(axes: Any, rows: Sequence[Bar], title: str) -> None:
    longest = max(row.figures.highest for row in rows)
    for at, row in enumerate(rows):
        f = row.figures
        spread = [[f.ratio - f.lowest], [f.highest - f.ratio]]
        axes.barh(at, f.ratio, color=_color(row), height=0.62)
        axes.errorbar(f.ratio, at, xerr=spread, color=DARK, capsize=2.5, linewidth=1)
        axes.text(f.highest + 0.025 * longest, at, f"{f.ratio:.2f}", va="center")
    axes.axvline(1, color=DARK, linestyle="--", linewidth=1)
    axes.set_xlim(0, 1.18 * longest)
    axes.set_title(title, fontsize=10.5, loc="left")
    _bare(axes)


def _memory(axes: Any, rows: Sequence[Bar], title: str) -> None:
    longest = max(row.figures.anonymous for row in rows) / 1e6
    for at, row in enumerate(rows):
        megabytes = row.figures.anonymous / 1e6
        axes.barh(at, megabytes, color=_color(row), height=0.62)
        axes.text(megabytes + 0.025 * longest, at, f"{megabytes:,.0f}", va="center")
    axes.set_xlim(0, 1.22 * longest)
    axes.set_title(title, fontsize=10.5, loc="left")
    _bare(axes)


def _color(row: Bar) -> str:
    return THEIRS if row.rival else OURS


def _bare(axes: Any) -> None:
    """No more lines than are read."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(left=False)
    axes.grid(axis="x", color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
