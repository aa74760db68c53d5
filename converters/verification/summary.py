"""What is said of a comparison."""

from __future__ import annotations

from ..errors import shown
from ..report import Report
from ..tensors.offset import RULE
from .compare import Comparison

LISTED = 3
"""Tensors that a sentence names; the data has them all."""


def describe_comparison(report: Report, found: Comparison, seconds: float) -> None:
    """The result of a verify."""
    report.differences = found.differences
    report.result = _result(found, f"{found.tensors} tensors, {found.elements:,} elements, bit for bit")
    verdict = "bit for bit the same" if not found.differences else f"{len(found.differences)} tensors differ"
    report.fact(
        "compared",
        f"{found.tensors} tensors, {found.elements:,} elements in {seconds:.1f} s: {verdict}",
        brief="",
        tensors=found.tensors,
        elements=found.elements,
        seconds=round(seconds, 3),
    )
    describe_by_rule(report, found)


def _result(found: Comparison, same: str) -> str:
    """The whole in one line; `same`: what is said to be the same where nothing differs."""
    if not found.differences:
        return f"same: {same}"
    return f"different: {len({d.tensor for d in found.differences})} of {len(found.names) or found.tensors} tensors"


def describe_by_rule(report: Report, found: Comparison) -> None:
    """The tensors that are what the rule makes of the other side's, rather than moved from there."""
    if not found.by_rule:
        return
    elements = sum(count.elements for count in found.by_rule.values())
    rounded = sum(count.rounded for count in found.by_rule.values())
    names = list(found.by_rule)
    listed = ", ".join(map(shown, names[:LISTED])) + f", … {len(names) - LISTED} more" * (len(names) > LISTED)
    report.fact(
        "by_rule",
        f"{len(names)} tensors are equal by rule ({listed}), which rounds {rounded:,} of {elements:,} elements: {RULE}",
        brief=f"{len(names)} tensors are equal by rule, which rounds {rounded:,} of {elements:,} elements",
        by_rule=names,
        rounded={
            "elements": elements,
            "rounded": rounded,
            "tensors": {name: count.rounded for name, count in found.by_rule.items()},
        },
    )


def describe_names(report: Report, found: Comparison, seconds: float) -> None:
    """The result where no element was compared: nothing is said about them."""
    report.differences = found.differences
    verdict = f"{len(found.differences)} of them differ" if found.differences else "the same"
    text = f"{found.tensors} tensors by name and shape, no element, in {seconds:.1f} s: {verdict}"
    report.result = _result(found, f"{found.tensors} tensors by name and shape; no element was compared")
    report.fact("compared", text, brief="", tensors=found.tensors, elements=0, seconds=round(seconds, 3))
