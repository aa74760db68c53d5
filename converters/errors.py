"""Everything vlconv refuses, as one tree.

VlconvError                  exit 1; the text says what, which file or tensor, and what to do
├── SourceError              the input is not what it should be
│   ├── NotACheckpoint       nothing recognisable there, or more than one candidate
│   ├── CorruptError         a file is missing, truncated, damaged or hostile
│   ├── ReadError            the system does not let a file be read; of its content that says nothing
│   ├── ChangedError         a file is not what it was when it was opened first
│   └── UnsupportedError     recognised, and refused by name
├── MismatchError            checkpoint, layout and config contradict one another
├── ReferenceFault           the reference HF directory cannot be had or lacks something
├── HubFault                 the Hub does not give a source or take an output
├── TargetError              the output cannot be written there
├── MissingLibrary           a library is not installed that this run needs and others do not
├── RankError                of several processes that do a run together one is gone, or does not come
├── OptionError              an option cannot have that value, or two do not go together (exit 2)
└── NotComparable            verify: the two sides cannot be compared (exit 3)
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from contextlib import contextmanager

DEEPEST = 60
"""Containers within containers, as far as they are spelled out."""

LONGEST = 1000
"""Characters of a path that are shown."""

_BRACKETS = {dict: ("{", "}"), list: ("[", "]"), set: ("{", "}"), frozenset: ("{", "}")}


class VlconvError(Exception):
    """Base of every refusal.

    Args:
        what: one sentence: what is wrong, naming the file or tensor.
        hint: what to do about it; printed on a line of its own. Where there is nothing particular to say, the class
            says it.
    """

    exit_code = 1
    usual_hint = ""

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint or self.usual_hint

    def __str__(self) -> str:
        return f"{self.what}\n{self.hint}" if self.hint else self.what


class SourceError(VlconvError):
    """The input is not what it should be."""


class NotACheckpoint(SourceError):
    """Nothing recognisable there, or more than one candidate."""


class CorruptError(SourceError):
    """A file is missing, truncated, damaged or hostile."""

    usual_hint = "The file is damaged, incomplete, or not what it claims to be: take another copy of it."


class ReadError(SourceError):
    """The system does not let a file be read; of its content that says nothing."""

    usual_hint = "See that the file can be read there, and try again."


class ChangedError(SourceError):
    """A file is not what it was when it was opened first: something writes there."""

    usual_hint = (
        "Wait until the trainer or the sync tool that writes there is done, and run it again; or convert an iteration "
        "that it is done with."
    )


class UnsupportedError(SourceError):
    """Recognised, and refused by name."""


class MismatchError(VlconvError):
    """Checkpoint, layout and config contradict one another."""


class ReferenceFault(VlconvError):
    """The reference HF directory cannot be had or lacks something."""


class HubFault(VlconvError):
    """The Hub does not give a source or take an output."""


class TargetError(VlconvError):
    """The output cannot be written there."""


class MissingLibrary(VlconvError):
    """A library is not installed that this run needs and others do not."""


class RankError(VlconvError):
    """Of several processes that do a run together one is gone, or does not come."""

    usual_hint = "See what its host and the launcher of the job say of it, and try again."


class OptionError(VlconvError, ValueError):
    """An option cannot have that value, or two options do not go together."""

    exit_code = 2


class NotComparable(VlconvError):
    """Verify: the two sides cannot be compared."""

    exit_code = 3


@contextmanager
def naming_missing_libraries() -> Iterator[None]:
    """Make one line of an import that fails.

    torch and others are imported where they are used, so that whoever does not use them need not have them.

    Raises:
        MissingLibrary: a module of another distribution is not there.
    """
    try:
        yield
    except ModuleNotFoundError as fault:
        module = (fault.name or "").partition(".")[0]
        if module in ("", "vlconv"):
            raise
        name = {"yaml": "pyyaml"}.get(module, module)
        raise MissingLibrary(
            f"{shown(name)} is not installed, and this needs it", f"pip install {shown(name)}"
        ) from fault


@contextmanager
def naming(subject: str) -> Iterator[None]:
    """Put the name of a file or tensor before errors raised by code that knows none.

    A reader of bytes does not know which file they are from; its caller does.
    """
    try:
        yield
    except SourceError as fault:
        raise type(fault)(f"{subject} {fault.what}", fault.hint) from None


def shown(name: object, cap: int = 200) -> str:
    """A name or a value from a file, safe to print: escaped and capped.

    What a checkpoint holds is data of a stranger: a terminal must not act on it, and a structure that shares its parts
    may be endless in full.
    """
    # The codec's function itself: to look a codec up by name takes a file, which there may be too many of.
    text = codecs.unicode_escape_encode(_beginning(name, cap + 1))[0].decode("ascii")
    return text if len(text) <= cap else text[: cap - 1] + "…"


def shown_path(path: object) -> str:
    """A path that the user gave, or that lies below one: of use in whatever script it is written, and safe to print."""
    text = "".join(c if c.isprintable() else shown(c) for c in str(path)[: LONGEST + 1])
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"


def _beginning(value: object, room: int) -> str:
    """The first `room` characters, or some more, of what str gives."""
    if isinstance(value, str):
        return value[:room]
    found = ""
    for piece in _pieces(value, room):
        found += piece
        if len(found) > room:
            break
    return found


def _pieces(value: object, room: int, depth: int = 0) -> Iterator[str]:
    """A value's repr, piece by piece."""
    if isinstance(value, dict | list | tuple | set | frozenset):
        opening, closing = _BRACKETS.get(type(value), ("(", ")"))
        yield opening if depth < DEEPEST else "..."
        for number, part in enumerate(value if depth < DEEPEST else ()):
            yield ", " if number else ""
            yield from _pieces(part, room, depth + 1)
            if isinstance(value, dict):
                yield ": "
                yield from _pieces(value[part], room, depth + 1)
        yield closing if depth < DEEPEST else ""
    elif isinstance(value, str | bytes | bytearray):
        yield repr(value[:room])
    elif isinstance(value, int) and value.bit_length() > 4096:  # beyond some size Python itself refuses to spell it
        yield f"an integer of {value.bit_length()} bits"
    else:
        yield repr(value) if depth else str(value)


def sized(nbytes: int) -> str:
    """A number of bytes for people, in decimal units: "812 B", "4.31 MB", "16.1 GB"."""
    return scaled(nbytes, ("B", "kB", "MB", "GB", "TB"))


def scaled(whole: int, units: tuple[str, ...]) -> str:
    """A number of three digits and one of units, each a thousand times the one before."""
    number, unit = float(whole), 0
    while number >= 999.5 and unit < len(units) - 1:
        number, unit = number / 1000, unit + 1
    return f"{number:.{(number < 9.995) + (number < 99.95)}f} {units[unit]}" if unit else f"{whole} {units[0]}"
