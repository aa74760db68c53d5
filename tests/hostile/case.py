"""What a case is: a good source, how it is damaged, and what is to come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

SECRET = "VLCONV_SECRET"
"""An environment variable whose value no run may show."""


class Work:
    """The folder of one run: `source/` to damage, `target/` for the output, `canary/` that nothing may touch.

    Args:
        folder: exists, with a copy of the base in `source`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.source, self.target = folder / "source", folder / "target"
        self.canary, self.temporary = folder / "canary", folder / "tmp"
        self.read = self.source
        """What the command is given; a case may change it."""
        self.standing: set[str] = set()
        """What stands in `target` before, and is to stay."""

    @property
    def out(self) -> Path:
        return self.target / "out"

    @cached_property
    def data(self) -> Path:
        """The directory of the checkpoint's own files."""
        inside = [f for f in sorted(self.source.iterdir()) if f.name.startswith(("iter_", "release", "ckpt"))]
        return inside[0] if inside else self.source

    @property
    def reference(self) -> Path:
        """The directory of config.json."""
        return self.source / "huggingface" if (self.source / "huggingface").exists() else self.source


Damage = Callable[[Work], object]
Words = str | tuple[str, ...]
"""What must be said; a tuple: one of these."""


@dataclass(frozen=True)
class Expected:
    """What is to come of a case.

    Attributes:
        outcomes: of "refused" (nothing written) and "equal" (exit 0, the good output), those that are right.
        says: all of it stands in stderr: the culprit's name.
        differs: with exit 0 the output need not be the good one, as the change is one that a reader has to carry over.
    """

    outcomes: frozenset[str]
    says: tuple[Words, ...] = ()
    differs: bool = False
    codes: tuple[int, ...] = (1,)
    """Exit codes of a refusal."""


def refused(*says: Words) -> Expected:
    """Exit 1, the culprit named, nothing left."""
    return Expected(frozenset({"refused"}), says)


def equal(*says: Words) -> Expected:
    """The good output, for the damage is where nobody looks."""
    return Expected(frozenset({"equal"}), says)


def warned(*says: Words, differs: bool = False) -> Expected:
    """Done, and told."""
    return Expected(frozenset({"equal"}), ("warning: ", *says), differs)


def either(*says: Words) -> Expected:
    """Refused or the good output; a refusal names the culprit."""
    return Expected(frozenset({"refused", "equal"}), says)


@dataclass(frozen=True)
class Case:
    """One damaged or hostile source."""

    name: str
    base: str
    damage: Damage
    expected: Expected
    options: tuple[str, ...] = ()
    command: str = ""
    """"": the base's own."""
    slow: bool = False

    def __str__(self) -> str:
        return self.name


class Kind:
    """The cases of one file, in order.

    Args:
        name: of the kind.
        fast: the bases whose cases `make test` runs, too; none: all.
        every: of the cases that a loop adds it runs one of so many; those that a function of their own makes, all.
    """

    def __init__(self, name: str, *fast: str, every: int = 1) -> None:
        self.name, self._fast, self._every, self._looped = name, fast, every, 0
        self.cases: list[Case] = []

    def add(
        self,
        title: str,
        bases: str | Iterable[str],
        damage: Damage,
        expected: Expected,
        *options: str,
        command: str = "",
        slow: bool = False,
    ) -> None:
        """One case for each base, as a loop adds them."""
        for base in (bases,) if isinstance(bases, str) else bases:
            late = self._late(base, slow)
            if not late:
                self._looped += 1
            self._add(title, base, damage, expected, options, command, late or self._looped % self._every != 0)

    def _late(self, base: str, slow: bool) -> bool:
        return slow or bool(self._fast and base not in self._fast)

    def _add(
        self,
        title: str,
        base: str,
        damage: Damage,
        expected: Expected,
        options: tuple[str, ...],
        command: str,
        slow: bool,
    ) -> None:
        name = f"{self.name}: {title} ({base})"
        self.cases.append(Case(name, base, damage, expected, options, command, slow))

    def case(
        self, bases: str | Iterable[str], expected: Expected, *options: str, command: str = "", slow: bool = False
    ) -> Callable[[Damage], Damage]:
        """A function that damages; its name is the case's."""

        def note(damage: Damage) -> Damage:
            title = damage.__name__.strip("_").replace("_", " ")
            for base in (bases,) if isinstance(bases, str) else bases:
                self._add(title, base, damage, expected, options, command, self._late(base, slow))
            return damage

        return note
