"""The files of a side while it is compared: they do not change, and are what the checkpoint states of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

from ..checkpoint.hf_side import HfSide
from ..checkpoint.mcore_side import McoreSide
from ..conversion.execute import check_integrity
from ..conversion.summary import unsummed
from ..report import Observer, Report

Side = HfSide | McoreSide


@contextmanager
def holding_sources(report: Report, sides: Mapping[str, Side], threads: int, observer: Observer) -> Iterator[None]:
    """Within it the sides are compared.

    Whole files are hashed before, where integrity.json lists them; that no file changed is checked at the end, and what
    no checksum vouched for is told.

    Args:
        report: told of it.
        sides: by name, "A" and "B"; "" for one alone.
        threads: how many files are hashed at a time.
        observer: told of the bytes.

    Raises:
        ChangedError: a file changed.
        CorruptError: a file is not the one that was saved.
    """
    with ExitStack() as stack:
        for side in sides.values():
            stack.enter_context(side.files.held())
        for name, side in sides.items():
            part = Report("verify", "")
            check_integrity(part, side.checkpoints, side.files, threads, observer)
            add_part(report, part, name)
        yield
        for name, side in sides.items():
            if warning := unsummed(side.checkpoints):
                add_part(report, Report("verify", "", warnings=[warning]), name)


def add_part(report: Report, part: Report, name: str) -> None:
    """Add what is told of one side to the report of both; `name` is "" where there is one side alone."""
    report.facts += [fact._replace(side=name) for fact in part.facts]
    report.warnings += [f"{name}: {w}" if name else w for w in part.warnings]
    data = report.data.setdefault(name.lower(), {}) if name else report.data
    data.update(part.data)
