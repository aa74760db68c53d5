"""What a command tells: one plain document, rendered for people or printed as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Protocol


@dataclass(slots=True)
class Difference:
    """One tensor in which two sides differ."""

    tensor: str
    kind: str  # "values", "dtype", "shape", "only in A", "only in B"
    count: int = 0  # differing elements
    first: tuple[int, ...] = ()  # index of the first of them
    max_abs: float | None = None  # largest |difference|; None where it has no meaning
    note: str = ""


@dataclass(slots=True)
class Report:
    """The result of a command, or of its dry run.

    `facts` are (label, sentence) pairs for people, in reading order; `data` holds the same and more for programs.
    """

    command: str
    status: str  # "done", "planned", "same", "different", "not comparable"
    facts: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def fact(self, label: str, text: str, **data: Any) -> None:
        """Add a sentence, and the same as data."""
        self.facts.append((label, text))
        self.data.update(data)

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "command": self.command,
            "status": self.status,
            **self.data,
            "facts": dict(self.facts),
            "warnings": self.warnings,
            "differences": [asdict(d) for d in self.differences],
        }


class Observer(Protocol):
    """Who watches a command at work. Called from the main thread and from workers; must not block."""

    def planned(self, report: Report) -> None:
        """Recognition and plan are complete, nothing is written yet."""

    def progress(self, done: int, total: int) -> None:
        """Bytes done of all bytes."""


class Silent:
    """An Observer that says nothing."""

    def planned(self, report: Report) -> None:
        """Ignore it."""

    def progress(self, done: int, total: int) -> None:
        """Ignore it."""
