"""What is said of a comparison."""

from __future__ import annotations

from ..report import Report
from .compare import Comparison


def describe_comparison(report: Report, found: Comparison, seconds: float) -> None:
    """The result of a verify."""
    report.differences = found.differences
    verdict = "bit for bit the same" if not found.differences else f"{len(found.differences)} tensors differ"
    report.fact(
        "compared",
        f"{found.tensors} tensors, {found.elements:,} elements in {seconds:.1f} s: {verdict}",
        tensors=found.tensors,
        elements=found.elements,
        seconds=round(seconds, 3),
    )


def describe_names(report: Report, found: Comparison, seconds: float) -> None:
    """The result where no element was compared: nothing is said about them."""
    report.differences = found.differences
    verdict = f"{len(found.differences)} of them differ" if found.differences else "the same"
    text = f"{found.tensors} tensors by name and shape, no element, in {seconds:.1f} s: {verdict}"
    report.fact("compared", text, tensors=found.tensors, elements=0, seconds=round(seconds, 3))
