"""In which parts of a model two sides differ: the language model, the vision tower, the multi-token-prediction head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..checkpoint.hf_side import HfSide
from ..checkpoint.mcore_side import McoreSide
from ..report import Difference, Report
from .comparison.compare import Comparison

LANGUAGE, TOWER, HEAD = "language model", "vision tower", "multi-token prediction"

Side = HfSide | McoreSide


def describe_parts(report: Report, found: Comparison, sides: Sequence[Side]) -> None:
    """How much of each part differs, and by how much; nothing where nothing does, or where no name is known.

    Args:
        report: told.
        found: by a comparison.
        sides: that were compared.
    """
    if not found.differences or not found.names:
        return
    towers = tuple(prefix for side in sides for prefix in _towers(side) if prefix)
    totals = Counter(_part(name, towers) for name in found.names)
    by_part: dict[str, list[Difference]] = {part: [] for part in (LANGUAGE, TOWER, HEAD) if part in totals}
    for difference in found.differences:
        by_part.setdefault(_part(difference.tensor, towers), []).append(difference)
    told = {part: _counted(differences, totals[part]) for part, differences in by_part.items()}
    report.fact("where", "; ".join(_words(part, counts) for part, counts in told.items()), parts=told)


def _towers(side: Side) -> Iterable[str]:
    """What names of the vision tower begin with, on the Hub and in the trainer's layout."""
    return [side.model.prefixes.vision, *([side.layout.tower] if isinstance(side, McoreSide) else [])]


def _part(name: str, towers: tuple[str, ...]) -> str:
    if name.startswith(towers):
        return TOWER
    return HEAD if "mtp" in name.split(".") else LANGUAGE


def _counted(differences: Sequence[Difference], tensors: int) -> dict[str, int | float | None]:
    largest = max((d.max_abs for d in differences if d.max_abs is not None), default=None)
    return {
        "tensors": tensors,
        "different": len({d.tensor for d in differences}),
        "max_abs": largest,
        "nan": sum(d.nan for d in differences),
    }


def _words(part: str, counts: dict[str, int | float | None]) -> str:
    if not counts["different"]:
        return f"{part}: same"
    nan = f", {counts['nan']:,} NaN" if counts["nan"] else ""
    largest = f", at most {counts['max_abs']:.3g}" if counts["max_abs"] is not None else ""
    return f"{part}: {counts['different']} of {counts['tensors']} tensors differ{largest}{nan}"
