"""What is said of an adapter and of merging it: sentences for people and the same as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapters.adapter import Adapter, Kind
from ...adapters.merged import RULE, Changed, Merged
from ...errors import shown, shown_path
from ...report import Report

if TYPE_CHECKING:
    from .adapter_side import AdapterSide
    from .peft_side import PeftAdapter

LISTED = 3
"""Tensors that a sentence names; the data has them all."""


def describe_adapter(report: Report, adapter: Adapter, kind: Kind, base: str, where: str = "") -> None:
    """Which adapter there is.

    Args:
        report: told.
        adapter: as it is read.
        kind: what it is by its names.
        base: where its base is, in words.
        where: the directory that it lies in; "": that of its base.
    """
    ranks, alphas = ({getattr(pair, name) for pair in adapter.pairs} for name in ("rank", "alpha"))
    targets, there = ", ".join(map(shown, kind.targets)), f"{where}: " if where else ""
    report.fact(
        "adapter",
        f"{there}LoRA in {kind.title}: {kind.modules} modules ({targets}), {adapter.said}; {base}",
        brief=f"{there}LoRA, {kind.modules} modules, {adapter.said}",
        adapter={
            "family": kind.family,
            "modules": kind.modules,
            "targets": list(kind.targets),
            "ranks": sorted(ranks),
            "alphas": sorted(alphas),
            "said": adapter.said,
            "base": base,
        },
    )


def describe_apart(report: Report, apart: AdapterSide | PeftAdapter, base: Path) -> None:
    """An adapter that lies elsewhere than its base, in the directory `base`."""
    where, whose = shown_path(apart.directory), f"its base is {shown_path(base)}"
    describe_adapter(report, apart.adapter, apart.kind, whose, where)
    report.warnings += apart.warnings


def describe_merging(report: Report, step: Merged) -> None:
    """What is computed instead of moved, before it is."""
    names = step.names
    some = ", ".join(map(shown, names[:LISTED])) + (f", … {len(names) - LISTED} more" if len(names) > LISTED else "")
    report.fact(
        "merging",
        f"the adapter goes into {len(names)} tensors ({some}): {RULE}",
        brief=f"into {len(names)} tensors",
        merging={"tensors": names, "rule": RULE},
    )


def describe_merged(report: Report, counts: Mapping[str, Changed]) -> None:
    """What became of the elements."""
    elements, changed, rounded = (sum(column) for column in zip(*counts.values(), strict=True))
    report.fact(
        "merged",
        f"{changed:,} of {elements:,} elements in {len(counts)} tensors are others than the base's; {rounded:,} sums "
        "were rounded",
        merged={
            "elements": elements,
            "changed": changed,
            "rounded": rounded,
            "tensors": {name: count.changed for name, count in counts.items()},
        },
    )
