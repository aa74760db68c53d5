"""A straight line through points, by least squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Line(NamedTuple):
    """y = start + slope * x.

    Attributes:
        residual: root of the mean squared distance of the points from it, in y's unit.
        share: the same as a share of how far the line rises over the points; small means straight.
    """

    start: float
    slope: float
    residual: float
    share: float

    def at(self, x: float) -> float:
        """Its y at an x."""
        return self.start + self.slope * x


def line(xs: Sequence[float], ys: Sequence[float]) -> Line | None:
    """The line that fits best; None where two different x are not known."""
    if len(set(xs)) < 2:
        return None
    x, y = np.asarray(xs, float), np.asarray(ys, float)
    away = x - x.mean()
    slope = float((away * (y - y.mean())).sum() / (away * away).sum())
    start = float(y.mean() - slope * x.mean())
    residual = float(np.sqrt(((y - start - slope * x) ** 2).mean()))
    rise = abs(slope) * float(x.max() - x.min())
    return Line(start, slope, residual, residual / rise if rise else float("inf"))
