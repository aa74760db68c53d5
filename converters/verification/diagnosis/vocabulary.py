"""The two tensors with a row per token: padding that was not cut, and an output layer that is some embedding."""

from __future__ import annotations

from collections.abc import Iterator

from ...report import Difference
from ...tensors.mapped import Renamed
from ...tensors.spec import Reader
from ...tensors.vocabulary import DIVISOR, EMBEDDING, MOST_RANKS, OUTPUT_LAYER, padded
from .diagnosis import Diagnosis
from .passes import Passes
from .permuted import TRAINED
from .sample import bits, likeness, sampled, windows

NEARLY = 1e-9
"""How far numbers are said to be off that are not the same and yet equal, as 0 and -0 are."""

PADDING, TIED = "vocabulary padding", "tied copy"
"""Names of what is found."""


def of_tokens(
    a: Reader, b: Reader, differences: list[Difference], passes: Passes, *, uncut: bool
) -> Iterator[Diagnosis]:
    """What explains other numbers of rows, and an output layer that one side alone has.

    Args:
        a, b: the two sides, under the Hub's names.
        differences: that were found.
        passes: how they are looked at.
        uncut: a side has more rows than its config.json counts.
    """
    rows = [d.tensor for d in differences if d.kind == "shape" and _by_rows(a, b, d.tensor)]
    lone = [d.tensor for d in differences if d.kind.startswith("only in ") and d.tensor.endswith(OUTPUT_LAYER)]

    def look(name: str) -> Diagnosis | None:
        if name in rows:
            return _padding(a, b, name, uncut=uncut)
        return _copied(a, b, name, ("A", "B")) if name in a.specs else _copied(b, a, name, ("B", "A"))

    def nbytes(name: str) -> int:
        return min(side.specs[name].nbytes for side in (a, b) if name in side.specs)

    yield from (found for _, found in passes.over(rows + lone, nbytes, look) if found)


def _by_rows(a: Reader, b: Reader, name: str) -> bool:
    """Whether only the number of its rows differs."""
    if not name.endswith((*EMBEDDING, *OUTPUT_LAYER)):
        return False
    (_, ours, dtype), (_, theirs, other) = a.specs[name], b.specs[name]
    return dtype == other and ours[1:] == theirs[1:]


def _padding(a: Reader, b: Reader, name: str, *, uncut: bool) -> Diagnosis | None:
    """The rows that both have, held against each other."""
    short, long = sorted((a, b), key=lambda side: side.specs[name].shape[0])
    rows, total = (side.specs[name].shape[0] for side in (short, long))
    usual = any(padded(rows, DIVISOR * ranks) == total for ranks in range(1, MOST_RANKS + 1))
    what = "vocabulary padding that was not cut" if uncut or usual else "added tokens, or padding that was not cut"
    more = f"the {total - rows} more at {'B' if long is b else 'A'}'s end are {what}"
    boxes = list(windows(short.specs[name]))
    if not any((bits(a, box) != bits(b, box)).any() for box in boxes):
        return Diagnosis(PADDING, f"the first {rows} rows are A's; {more}", True, [name])
    off = likeness(a, b, sampled(short.specs[name])).relative
    if off >= TRAINED:
        return None
    says = f"the first {rows} rows are a little off A's, as training leaves them; {more}"
    return Diagnosis(PADDING, says, False, [name], relative=(off, off))


def _copied(has: Reader, lacks: Reader, name: str, letters: tuple[str, str]) -> Diagnosis | None:
    """An output layer that one side alone has, held against the embeddings of both."""
    x, y = letters
    own, other = _is_embedding(has, name, has), _is_embedding(has, name, lacks)
    if own == 0:
        return Diagnosis(TIED, f"{x}'s output layer is a copy of {x}'s own embedding, as if tied", True, [name])
    if other == 0:
        says = f"{x}'s output layer is {y}'s embedding and not {x}'s own: a copy of a tied one, left behind"
        return Diagnosis(TIED, says, True, [name])
    if own < TRAINED:
        says = f"{x}'s output layer is near {x}'s own embedding, and no copy of it: they were trained apart"
        return Diagnosis(TIED, says, False, [name])
    return None


def _is_embedding(has: Reader, name: str, side: Reader) -> float:
    """How far an output layer is from a side's embedding, relative to that; 0.0 only where they are equal."""
    found = next((n for n in side.specs if n.endswith(EMBEDDING)), "")
    spec = has.specs[name]
    if not found or side.specs[found][1:] != spec[1:]:
        return float("inf")
    made = Renamed(side, {name: found})
    if not any((bits(made, box) != bits(has, box)).any() for box in windows(spec)):
        return 0.0
    return likeness(made, has, sampled(spec)).relative or NEARLY
