"""What a command tells: one plain document, rendered for people or printed as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol


@dataclass(slots=True)
class Difference:
    """One tensor in which two sides differ."""

    tensor: str
    kind: str  # "values", "dtype", "shape", "only in A", "only in B"
    count: int = 0  # differing elements
    first: tuple[int, ...] = ()  # index of the first of them
    max_abs: float | None = None  # largest |difference|; None where it has no meaning
    note: str = ""


class Fact(NamedTuple):
    """One thing that is told to people.

    Attributes:
        name: what it is about, the same in every version: "config_from".
        text: a sentence in plain English; only for reading.
        side: "A" or "B" where two sides are told of.
    """

    name: str
    text: str
    side: str = ""

    @property
    def label(self) -> str:
        """What stands before the sentence on a screen: "A config from"."""
        return f"{self.side} {self.name}".strip().replace("_", " ")


@dataclass(slots=True)
class Report:
    """The result of a command, or of its dry run.

    `facts` are for people, in reading order; `data` holds the same and more for programs, under names of its own.
    """

    command: str
    status: str  # "done", "planned", "same", "different", "not comparable"
    facts: list[Fact] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def fact(self, name: str, text: str, **data: Any) -> None:
        """Add a sentence, and the same as data."""
        self.facts.append(Fact(name, text))
        self.data.update(data)

    @property
    def told(self) -> dict[str, str]:
        """The sentences by name; of two sides as "a_source"."""
        return {f"{fact.side.lower()}_{fact.name}".strip("_"): fact.text for fact in self.facts}

    def as_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "command": self.command,
            "status": self.status,
            **self.data,
            "facts": self.told,
            "warnings": self.warnings,
            "differences": [asdict(d) for d in self.differences],
        }


class Phase(StrEnum):
    """What a command is at; its text is for people.

    Of each, bytes may be told or none, and more than once from the first on: done falls back then.
    """

    CHECKING_SOURCE = "checking sums"
    CHECKING_FILES = "checking files"
    LOADING = "loading"
    WRITING = "writing"
    HASHING = "hashing"
    READING_BACK = "reading back"
    BRINGING_TO_DISK = "bringing to disk"
    COMPARING = "comparing"


class Observer(Protocol):
    """Who watches a command at work. Called from the main thread and from workers; must not block.

    It may have two methods more:

        phase(phase)    what comes next is that Phase; bytes that are told from here on are of it.
        written(place)  the output has taken its place, and nothing undoes it any more. While that is called, signals
                        wait.
    """

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


def tell_phase(observer: Observer, phase: Phase) -> None:
    """Tell an observer that wants to know it what comes next."""
    if told := getattr(observer, "phase", None):
        told(phase)


def tell_written(observer: Observer, place: Path) -> None:
    """Tell an observer that wants to know it that the output stands."""
    if written := getattr(observer, "written", None):
        written(place)
