"""Figures out of what was measured. All of them come from the runs in bench.json, and only from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, NamedTuple

Json = Mapping[str, Any]


class Figures(NamedTuple):
    """Of one program in one comparison.

    Attributes:
        ratio: its seconds to the baseline's of the same round, in the median; lowest and highest beside it.
        seconds, cpu: in the median.
        cpu_per_gb: of what is read: for verify, of both sides.
        gb_per_s: of what is read.
        anonymous: bytes, the most of all runs.
    """

    ratio: float
    lowest: float
    highest: float
    seconds: float
    cpu: float
    cpu_per_gb: float
    gb_per_s: float
    anonymous: int


def figures(comparison: Json, entry: Json) -> Figures:
    """The figures of an entry of a comparison: of a contender, or of the baseline itself."""
    runs, gigabytes = entry["runs"], comparison["bytes"] / 1e9
    # A program that takes part in the first rounds only is held against those.
    ratios = [own["seconds"] / other["seconds"] for own, other in zip(runs, comparison["baseline"]["runs"])]  # noqa: B905
    seconds, cpu = (median(run[what] for run in runs) for what in ("seconds", "cpu"))
    most = max(run["anonymous"] for run in runs)
    return Figures(median(ratios), min(ratios), max(ratios), seconds, cpu, cpu / gigabytes, gigabytes / seconds, most)


def ours(comparison: Json, threads: int | None = None) -> Json:
    """vlconv's entry, with so many threads; None: with none asked for."""
    return next(e for e in comparison["contenders"] if not e["rival"] and e["threads"] == threads)


def middle(runs: Sequence[Json], what: str) -> float:
    """The median of one figure."""
    return float(median(run[what] for run in runs))


def fewest(runs: Sequence[Json], what: str) -> float:
    """The least of one figure: what nothing else on the machine has added to."""
    return float(min(run[what] for run in runs))


def most(runs: Sequence[Json], what: str) -> float:
    """The most of one figure."""
    return float(max(run[what] for run in runs))
