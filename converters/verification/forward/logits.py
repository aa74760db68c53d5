"""Logits of two runs held against each other, and against the noise of computing them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ...tensors.spec import Array

EQUAL, NOISE, FEW, DIFFERENT, NOTHING = "equal", "noise", "few", "different", "nothing"

FACTOR = 10
"""How many times the noise that was measured is noise still: it was measured a few times alone."""

OTHER_EXPERTS = 0.1
"""Of all positions, at how many other experts may be taken by two programs that compute the same."""

LOUD = 0.1
"""Of the logits' spread: a wrong order of a few heads may cost no more."""

LAST_PLACE = 2.0**-23
"""Of float32, relative: logits are given in that, whatever they were computed in."""

PLACES = 8
"""Last places of the largest logit that are noise in any case."""


@dataclass(frozen=True, slots=True)
class Gap:
    """How far the logits of two runs lie apart.

    Attributes:
        positions: tokens, for each of which there are as many logits as the vocabulary has rows.
        apart: positions at which something is further apart than the noise.
        other_token: positions at which the most likely token is another.
        max_abs: the largest |difference|; infinite where one side alone has no number.
        spread: the standard deviation of the first side's logits.
        noise: what a difference must exceed to be more than noise.
        nan: positions without numbers on either side.
        equal: they are equal bit for bit.
        unsure: positions at which the first side is further from itself than that: it takes other experts there, as
            two are nearly as good as each other. They are not counted in `apart`.
        few: so many positions may be apart for that reason, too.
        bare: positions at which no logit is a number on both sides, so that nothing is compared.
    """

    positions: int
    apart: int
    other_token: int
    max_abs: float
    spread: float
    noise: float
    nan: int
    equal: bool
    unsure: int = 0
    few: int = 0
    bare: int = 0

    @property
    def relative(self) -> float:
        """The largest |difference| by the spread."""
        return self.max_abs / self.spread if self.spread else math.inf if self.max_abs else 0.0

    @property
    def loud(self) -> bool:
        """Whether the noise is so large that a fault may hide in it."""
        return self.noise > LOUD * self.spread

    @property
    def verdict(self) -> str:
        """EQUAL, NOISE, DIFFERENT; FEW: it cannot be told which of these two; NOTHING: there was nothing to compare."""
        if self.apart > self.few:
            return DIFFERENT
        if self.bare == self.positions:  # NaN is equal to NaN, and says nothing of two models
            return NOTHING
        return EQUAL if self.equal else FEW if self.apart else NOISE


class Noise(NamedTuple):
    """How far a computation is from itself.

    Attributes:
        usual: the largest |difference| at a position; of a model with experts at half of them, as a last place may
            decide which expert is taken, and another one is not noise.
        by_position: that of each position, [sequences, tokens].
    """

    usual: float
    by_position: Array


def gap(a: Path, b: Path, measured: Noise, *, picks: bool = False) -> Gap:
    """Compare two files of logits.

    Args:
        a, b: .npy, float32 [sequences, tokens, vocabulary]; of two vocabularies the rows that both have.
        measured: of A.
        picks: two programs have computed a model with experts, and need not take the same ones everywhere.
    """
    import numpy as np

    left, right = (np.load(path, mmap_mode="r") for path in (a, b))
    rows = min(left.shape[-1], right.shape[-1])
    left, right = left[..., :rows], right[..., :rows]
    if left.shape != right.shape or not left.size:
        raise RuntimeError(f"logits of shapes {left.shape} and {right.shape}")
    noise = FACTOR * max(measured.usual, _last_places(left))
    furthest = np.stack([_furthest(x, y) for x, y in zip(left, right, strict=True)])
    unsure = measured.by_position > noise
    numbers = [np.isfinite(x) & np.isfinite(y) for x, y in zip(left, right, strict=True)]
    return Gap(
        positions=furthest.size,
        apart=int(((furthest > noise) & ~unsure).sum()),
        other_token=int((left.argmax(-1) != right.argmax(-1)).sum()),
        max_abs=float(furthest.max()),
        spread=float(np.std(left[np.isfinite(left)], dtype=np.float64)) if np.isfinite(left).any() else 0.0,
        noise=noise,
        nan=sum(int((~both.all(-1)).sum()) for both in numbers),
        equal=all(x.tobytes() == y.tobytes() for x, y in zip(left, right, strict=True)),
        unsure=int(unsure.sum()),
        few=int(furthest.size * OTHER_EXPERTS) if picks else 0,
        bare=sum(int((~both.any(-1)).sum()) for both in numbers),
    )


def measured_noise(plain: Path, others: Sequence[Path], *, experts: bool = False) -> Noise:
    """How far a computation is from the same in other ways.

    Args:
        plain, others: files of logits.
        experts: the model has some.
    """
    import numpy as np

    first = np.load(plain, mmap_mode="r")
    far = np.zeros(first.shape[:-1])
    for other in others:
        again = np.stack([_furthest(x, y) for x, y in zip(first, np.load(other, mmap_mode="r"), strict=True)])
        far = np.maximum(far, np.where(np.isfinite(again), again, 0.0))
    return Noise(float(np.median(far) if experts else far.max(initial=0.0)), far)


def larger(a: Noise, b: Noise) -> Noise:
    """Of two computations that are held against each other."""
    import numpy as np

    return Noise(max(a.usual, b.usual), np.maximum(a.by_position, b.by_position))


def _furthest(a: Array, b: Array) -> Array:
    """For each position the largest |difference|; infinite where one side alone has no number, or another infinity."""
    import numpy as np

    with np.errstate(invalid="ignore"):
        far = np.abs(a.astype(np.float64) - b)
    far[(a == b) | (np.isnan(a) & np.isnan(b))] = 0.0
    far[np.isnan(far)] = np.inf
    found: Array = far.max(-1)
    return found


def _last_places(logits: Array) -> float:
    import numpy as np

    finite = np.abs(logits[np.isfinite(logits)])
    return PLACES / FACTOR * LAST_PLACE * float(finite.max(initial=0.0))
