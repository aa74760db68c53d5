"""What a page says: all of a report, as text that is safe to read and no longer than a page holds."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from vlconv import __version__
from vlconv.differences import worst_first
from vlconv.heat import legend_of
from vlconv.page.maps import maps
from vlconv.text import CHARACTERS, message, one_line, safe

if TYPE_CHECKING:
    from vlconv.converters import Difference, Fact, Finding, Report

ROWS = 1_000
"""Differing tensors, and findings, that a page lists, the worst first."""

FIRST = ("diagnosis", "where", "compared")
"""Facts that are read before the others."""

PLAINLY = {"same": "No difference was found.", "planned": "A dry run: nothing was compared yet."}
"""Said where nothing is listed, by the report's status."""

Item = TypeVar("Item")


def content(report: Report, a: str, b: str) -> dict[str, Any]:
    """The values of the template's names.

    Args:
        report: of any form of verify.
        a, b: what was held against what, as it was asked for; "": not said.
    """
    return {
        "version": __version__,
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "status": report.status,
        "command": one_line(report.command),
        "result": message(report.result or report.status),
        "sides": [(name, one_line(side)) for name, side in (("A", a), ("B", b)) if side],
        "facts": [(one_line(fact.label), _lines(fact)) for fact in sorted(report.facts, key=_rank)],
        "maps": list(maps(report.heat_map)),
        "legend": legend_of(report.heat_map) if report.heat_map else (),
        "verdict": "" if report.differences or report.findings else PLAINLY.get(report.status, ""),
        "differences": _few([_difference(d) for d in worst_first(report.differences)[:ROWS]], report.differences),
        "findings": _few([_finding(found) for found in report.findings[:ROWS]], report.findings),
        "warnings": _few([message(warning) for warning in report.warnings[:ROWS]], report.warnings),
        "steps": [(one_line(step.name), safe(step.command[:CHARACTERS])[:CHARACTERS]) for step in report.steps],
    }


def _few(shown: list[Any], of: Sequence[Item]) -> dict[str, Any]:
    """What is listed, how many there are, and how many of them are not listed."""
    return {"shown": shown, "all": len(of), "more": len(of) - len(shown)}


def _rank(fact: Fact) -> int:
    return FIRST.index(fact.name) if fact.name in FIRST else len(FIRST)


def _lines(fact: Fact) -> list[str]:
    return message(fact.text).split("\n")


def _difference(d: Difference) -> dict[str, Any]:
    return {
        "tensor": one_line(d.tensor),
        "kind": one_line(d.kind),
        "count": d.count or None,
        "largest": d.max_abs,
        "relative": d.relative,
        "first": one_line(list(d.first)) if d.first else "",
        "nan": d.nan or None,
        "note": one_line(d.note),
    }


def _finding(found: Finding) -> dict[str, Any]:
    listed = [one_line(name) for name in found.tensors[:10]]
    return {
        "severity": one_line(found.severity),
        "what": one_line(found.what),
        "load": one_line(found.load),
        "tensors": listed,
        "more": max(0, found.count - len(listed)),
    }
