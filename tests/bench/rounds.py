"""Runs a comparison: in every round each program once, one after the other, so that a ratio compares like with like."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import cache, making, process
from .comparisons import Comparison, Contender
from .process import Run

Say = Callable[[str], None]


@dataclass
class _Tally:
    """A program and what came of it so far."""

    one: Contender
    runs: list[Run] = field(default_factory=list)
    failed: str | None = None

    def entry(self) -> dict[str, Any]:
        """For bench.json."""
        runs = [run._asdict() for run in self.runs]
        return {
            "name": self.one.name,
            "threads": self.one.threads,
            "rival": self.one.rival,
            "failed": self.failed,
            "runs": runs,
        }


class Rounds:
    """How often, and with what in the page cache.

    Args:
        target: what every program writes; removed after each.
        pairs: rounds.
        rival_pairs: the first rounds, in which other programs take part.
        say: is told of every run.
    """

    def __init__(self, target: Path, pairs: int, rival_pairs: int, say: Say) -> None:
        self._target, self._say = target, say
        self._pairs, self._rival_pairs = pairs, rival_pairs

    def run(self, comparison: Comparison, cold: bool) -> dict[str, Any]:
        """What was measured, for bench.json.

        Raises:
            Failed: vlconv, cp or cat failed; where another program does, that is noted.
        """
        files = list(making.many(comparison.reads))
        tallies = [_Tally(one) for one in (comparison.baseline, *comparison.contenders)]
        cached = []
        cache.warm(() if cold else files)
        for number in range(self._pairs):
            for tally in tallies:
                if tally.failed or (tally.one.rival and number >= self._rival_pairs):
                    continue
                if cold:
                    cache.drop(files)
                    cached.append(cache.resident(files))
                self._once(tally, last=number == self._pairs - 1)
                self._say(f"  {comparison.name}{' (cold)' if cold else ''}: {_told(tally)}")
        baseline, *contenders = [tally.entry() for tally in tallies]
        return {
            "name": comparison.name,
            "cache": "cold" if cold else "warm",
            "cached_before_cold_runs": max(cached, default=None),
            "bytes": sum(path.stat().st_size for path in files),
            "files": len(files),
            "baseline": baseline,
            "contenders": contenders,
        }

    def _once(self, tally: _Tally, last: bool) -> None:
        """Run it, hold what the last run wrote against the source, and remove it."""
        try:
            tally.runs.append(process.measure(tally.one.command))
            if last and tally.one.proof:
                process.measure(tally.one.proof)
        except process.Failed as fault:
            if not tally.one.rival:
                raise
            tally.failed = fault.last
        shutil.rmtree(self._target, ignore_errors=True)
        os.sync()  # nobody writes back what another has written


def _told(tally: _Tally) -> str:
    threads = f" --threads {tally.one.threads}" if tally.one.threads else ""
    return f"{tally.one.name}{threads}: " + (
        f"failed: {tally.failed}" if tally.failed else f"{tally.runs[-1].seconds:.2f} s"
    )


def repeated(command: Sequence[str], times: int, target: Path | None = None) -> list[Run]:
    """The same several times; what it writes is removed."""
    runs = []
    for _ in range(times):
        runs.append(process.measure(command))
        if target:
            shutil.rmtree(target, ignore_errors=True)
    return runs
