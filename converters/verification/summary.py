"""What is said of a comparison."""

from __future__ import annotations

from dataclasses import asdict

from ..checkpoint.lora.describe_adapter import describe_merged
from ..errors import shown
from ..report import Report
from ..tensors.fp8.quantised import RULE as FP8_RULE
from ..tensors.offset import RULE
from .comparison.compare import Comparison
from .diagnosis.diagnosis import Diagnosis

LISTED = 3
"""Tensors that a sentence names; the data has them all."""


def describe_comparison(report: Report, found: Comparison, seconds: float) -> None:
    """The result of a verify."""
    report.differences = found.differences
    fp8 = len(found.by_fp8_rule)
    how = f"{fp8} of them FP8 by rule, the others bit for bit" if fp8 else "bit for bit"
    report.result = _result(found, f"{found.tensors} tensors, {found.elements:,} elements, {how}")
    verdict = f"the same, {how}" if not found.differences else f"{len(found.differences)} tensors differ"
    report.fact(
        "compared",
        f"{found.tensors} tensors, {found.elements:,} elements in {seconds:.1f} s: {verdict}",
        brief="",
        tensors=found.tensors,
        elements=found.elements,
        seconds=round(seconds, 3),
    )
    describe_by_rule(report, found)
    describe_by_fp8_rule(report, found)
    describe_diagnoses(report, found)
    if found.merged:
        describe_merged(report, found.merged)


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


def describe_by_fp8_rule(report: Report, found: Comparison) -> None:
    """The tensors that are FP8 on one side, and exactly what the rule makes of the other's."""
    if not found.by_fp8_rule:
        return
    names = list(found.by_fp8_rule)
    listed = ", ".join(map(shown, names[:LISTED])) + f", … {len(names) - LISTED} more" * (len(names) > LISTED)
    report.fact(
        "by_fp8_rule",
        f"{len(names)} tensors are equal by rule ({listed}), codes and scales to the bit: {FP8_RULE}",
        brief=f"{len(names)} tensors are FP8 made of the other side's by rule, codes and scales to the bit",
        by_fp8_rule=names,
    )


def describe_diagnoses(report: Report, found: Comparison) -> None:
    """What explains the differences, a line for each explanation."""
    if not found.diagnoses:
        return
    lines = [_explained(one) for one in found.diagnoses]
    report.fact("diagnosis", "\n".join(lines), diagnosis=[asdict(one) for one in found.diagnoses])


def _explained(one: Diagnosis) -> str:
    count = len(one.tensors)
    many = f"{count} of {one.concerns} tensors" if one.concerns else f"{count} tensor{'s' * (count > 1)}"
    how = ", exactly" if one.exact else ""
    turned = "; A is that of B" if one.of == "B" else ""
    name = f" [{one.name}]" if one.concerns else ""
    rivals = f"; as well it may be {', '.join(one.rivals)}" if one.rivals else ""
    far = f"; relative to A {_span(*one.relative)}" if one.relative and not one.exact else ""
    whose = f"; known of {one.known_of}" if one.known_of and not one.rivals else ""  # else it may be another's
    return f"{many}{how}: {shown(one.says, 400)}{name}{rivals}{turned}{whose}{far}"


def _span(least: float, most: float) -> str:
    return f"{most:.2g}" if f"{least:.2g}" == f"{most:.2g}" else f"{least:.2g} to {most:.2g}"


def describe_names(report: Report, found: Comparison, seconds: float) -> None:
    """The result where no element was compared: nothing is said about them."""
    report.differences = found.differences
    verdict = f"{len(found.differences)} of them differ" if found.differences else "the same"
    text = f"{found.tensors} tensors by name and shape, no element, in {seconds:.1f} s: {verdict}"
    report.result = _result(found, f"{found.tensors} tensors by name and shape; no element was compared")
    report.fact("compared", text, brief="", tensors=found.tensors, elements=0, seconds=round(seconds, 3))
