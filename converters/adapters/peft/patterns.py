"""rank_pattern and alpha_pattern: peft takes their keys for regular expressions over the ends of modules' paths.

Those of a stranger are not run. Keys that are names, as nearly all are, mean what they mean to peft: a whole path or
the end of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ...errors import UnsupportedError, shown

_PLAIN = re.compile(r"(?:[\w-]|\\?\.)+", re.ASCII)


class Patterns:
    """Values of modules, by the names or ends of names that a config states. The first that fits counts.

    Args:
        values: pattern -> value.
        where: what they are, for errors; safe to print.

    Raises:
        UnsupportedError: a pattern is more than a name.
    """

    def __init__(self, values: Mapping[str, float], where: str) -> None:
        self._where = where
        self._values: dict[str, tuple[int, float]] = {}
        for number, (pattern, value) in enumerate(values.items()):
            if not _PLAIN.fullmatch(pattern):
                raise UnsupportedError(
                    f"{where} has the pattern {shown(pattern)}, which is no module's name or the end of one",
                    "Write a key for each module: its whole path in the model.",
                )
            self._values.setdefault(pattern.replace("\\.", "."), (number, value))
        self._lengths = sorted({len(pattern) for pattern in self._values})

    def of(self, path: str, otherwise: float) -> float:
        """The value of a module; `otherwise` where no pattern fits."""
        found = [self._values[pattern] for pattern in self._fitting(path)]
        return min(found)[1] if found else otherwise

    def check_used(self, paths: Iterable[str]) -> None:
        """Every pattern is about some module of the adapter.

        A dot is any character to peft: a pattern that fits nothing here might fit something there.

        Raises:
            UnsupportedError: one fits no path.
        """
        unused = self._values.keys() - {pattern for path in paths for pattern in self._fitting(path)}
        if unused:
            raise UnsupportedError(
                f"{self._where} has the pattern {shown(min(unused))}, which fits no module of this adapter",
                "Take it out, or spell the module's path as the adapter's tensors have it.",
            )

    def _fitting(self, path: str) -> list[str]:
        """The patterns that a path is or ends with. Of each length only one can be."""
        ends = (path[-n:] for n in self._lengths if n == len(path) or path[-n - 1 : -n] == ".")
        return [end for end in ends if end in self._values]
