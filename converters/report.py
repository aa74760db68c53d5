"""What a command tells: one plain document, rendered for people or printed as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import isnan
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol

from .errors import OptionError

Progress = Callable[[int, int], object]
"""A function that is told how far a command is: bytes done, and all bytes of what it is at; done falls back to 0 where
something else begins. One call at a time, though from several threads; what it raises ends the command.
"""


@dataclass(slots=True)
class Difference:
    """One tensor in which two sides differ."""

    tensor: str
    kind: str  # "values", "dtype", "shape", "only in A", "only in B"
    count: int = 0  # differing elements
    first: tuple[int, ...] = ()  # index of the first of them
    max_abs: float | None = None  # largest |difference|; None where it has no meaning
    note: str = ""
    nan: int = 0  # differing elements that are NaN on either side
    relative: float | None = field(default=None, compare=False)  # |difference| by |A|, of a sample; None: not looked at


@dataclass(slots=True)
class Finding:
    """One thing that is wrong, or worth knowing, with a directory that another tool wrote.

    Attributes:
        severity: "wrong": it is not served, or served as another model; "note": it is served as it should be.
        kind: what it is about: "damaged", "index", "names", "shapes", "dtypes", "config", "tie", "mtp", "files".
        what: one line.
        load: what comes of it where the directory is loaded, in one line.
        tensors: the first few names.
        count: of all tensors that it is about.
    """

    severity: str
    kind: str
    what: str
    load: str
    tensors: list[str] = field(default_factory=list)
    count: int = 0


@dataclass(frozen=True, slots=True)
class HeatMap:
    """How far two sides are apart, layer by layer and module by module.

    Attributes:
        rows: the layers from first to last, as "3" and, of the vision tower, "vision 3"; "" is what is in no layer.
        columns: the modules: "q", "down", "router".
        cells: by row and column: the largest |difference| by |A| of the tensors there; 0.0: all are equal; NaN: one
            differs, but not in numbers, or where the sample has none; None: there is none.
    """

    rows: list[str]
    columns: list[str]
    cells: list[list[float | None]]

    @staticmethod
    def worst(cells: Iterable[float | None]) -> float | None:
        """The one that stands for several: what is measured before what is not, and that before what is the same."""
        there = [cell for cell in cells if cell is not None]
        return max(there, key=lambda cell: (cell != 0, not isnan(cell), cell), default=None)


class Step(NamedTuple):
    """What a user may do next.

    Attributes:
        name: what for: "serve".
        command: as it is typed, or what a trainer's configuration says.
    """

    name: str
    command: str


class Fact(NamedTuple):
    """One thing that is told to people.

    Attributes:
        name: what it is about, the same in every version: "config_from".
        text: a sentence in plain English; only for reading.
        side: "A" or "B" where two sides are told of.
        brief: what a short summary says instead; "" where it leaves the fact out, None where it says the same.
    """

    name: str
    text: str
    side: str = ""
    brief: str | None = None

    @property
    def label(self) -> str:
        """What stands before the sentence on a screen: "A config from"."""
        return f"{self.side} {self.name}".strip().replace("_", " ")


@dataclass(slots=True)
class Report:
    """The result of a command, or of its dry run.

    `facts` are for people, in reading order; `data` holds the same and more for programs, under names of its own.

    Attributes:
        result: the whole in one line, for people: "out: 625 tensors, 4.26 GB, Qwen3-VL-2B, from iteration 1000 of run".
        steps: what a user may do next.
        findings: by --like.
        heat_map: of two sides that differ.
        last: the one of `warnings` that is said after everything else, as the output is of no use without it; "": none.
    """

    command: str
    status: str  # "done", "planned", "same", "different", "not comparable"
    facts: list[Fact] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    heat_map: HeatMap | None = None
    data: dict[str, Any] = field(default_factory=dict)
    result: str = ""
    steps: list[Step] = field(default_factory=list)
    last: str = ""

    def fact(self, name: str, text: str, *, brief: str | None = None, **data: Any) -> None:
        """Add a sentence, and the same as data; `brief` as in Fact."""
        self.facts.append(Fact(name, text, brief=brief))
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
            **({"findings": [asdict(f) for f in self.findings]} if self.findings else {}),
            **({"heat_map": asdict(self.heat_map)} if self.heat_map else {}),
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
    EXPLAINING = "finding out why"
    RUNNING = "running the models"
    UPLOADING = "uploading"


class Observer(Protocol):
    """Who watches a command at work. Called from the main thread and from workers; must not block.

    It may have two methods more:

        phase(phase)    what comes next is that Phase; bytes that are told from here on are of it.
        written(place)  the output has taken its place, and nothing undoes it any more. While that is called, signals
                        wait, until a Phase UPLOADING begins.
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


class ByFunction(Silent):
    """An Observer that calls one function."""

    def __init__(self, function: Progress) -> None:
        self._function, self._one = function, Lock()

    def progress(self, done: int, total: int) -> None:
        """Call it, one thread after another."""
        with self._one:
            self._function(done, total)


def watching(observer: Observer | None, progress: Progress | None) -> Observer:
    """The Observer of a call.

    Raises:
        OptionError: both are given.
    """
    if observer is not None and progress is not None:
        raise OptionError(
            "both observer and progress are given, and an observer is told the progress, too", "Leave one of them out."
        )
    return observer or (ByFunction(progress) if progress is not None else Silent())


def tell_phase(observer: Observer, phase: Phase) -> None:
    """Tell an observer that wants to know it what comes next."""
    if told := getattr(observer, "phase", None):
        told(phase)


def tell_written(observer: Observer, place: Path) -> None:
    """Tell an observer that wants to know it that the output stands."""
    if written := getattr(observer, "written", None):
        written(place)
