"""Every case of the table, by the real command, and what came of it: what README says of hostile sources.

python -m hostile [--fast] [--only WORDS] [--jobs N] [--kept FOLDER]
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .bases import BASES, Bases
from .case import Case
from .running import Corpus
from .table import CASES, KINDS

PROMISES = {
    "executed": "executed",
    "silent": "another model, silently",
    "traceback": "tracebacks",
    "died": "deaths",
    "hung": "hung or slow",
    "slow": "hung or slow",
    "memory": "too much memory",
    "orphans": "processes left",
    "leftover": "half outputs, files left",
}
"""Kinds of fault (running.judge) and what the table calls them."""

_corpus: Corpus


def main() -> int:
    """Run; 0 when everything is as expected."""
    parser = argparse.ArgumentParser(prog="python -m hostile", description="Damaged and hostile sources.")
    parser.add_argument("--fast", action="store_true", help="only those of `make test`")
    parser.add_argument("--only", default="", help="only those with these words in their names")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--quiet", action="store_true", help="do not show what stderr said")
    asked = parser.parse_args()
    cases = [c for c in CASES if asked.only in c.name and not (asked.fast and c.slow)]
    folder = Path(tempfile.mkdtemp(prefix="hostile-"))
    try:
        return run(cases, folder, asked.jobs, asked.quiet)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(cases: list[Case], folder: Path, jobs: int, quiet: bool) -> int:
    """Run the cases and print the table."""
    bases = Bases(folder / "bases")
    for name in sorted({c.base for c in cases}):
        bases.of(name)
    begun, found = time.monotonic(), {}
    with multiprocessing.get_context("fork").Pool(jobs, _begin, (folder,)) as pool:
        for case, (seconds, faults) in zip(cases, pool.imap(_faults, [CASES.index(c) for c in cases]), strict=True):
            found[case.name] = faults
            if faults:
                text = [line for line in faults if not (quiet and (line == faults[-1] or line == "---"))]
                print(f"{case.name} ({seconds:.2f} s)", *text, sep="\n    ", flush=True)
    print(table(found))
    print(f"{time.monotonic() - begun:.0f} s; made for {len(BASES)} good sources")
    return int(any(found.values()))


def table(found: dict[str, list[str]]) -> str:
    """The table for README."""
    broken: Counter[str] = Counter()
    for faults in found.values():
        broken.update({PROMISES[kind] for line in faults if (kind := line.partition(":")[0]) in PROMISES})
    kinds = [(k.name, [found[c.name] for c in k.cases if c.name in found]) for k in KINDS]
    lines = ["| damaged or hostile | cases | as expected |", "|---|---:|---:|"]
    lines += [f"| {name} | {len(rows)} | {sum(not r for r in rows)} |" for name, rows in kinds if rows]
    lines += [f"| **all** | {len(found)} | {sum(not f for f in found.values())} |"]
    lines += ["", ", ".join(f"{what} {broken[what]}" for what in dict.fromkeys(PROMISES.values()))]
    return "\n".join(lines)


def _begin(folder: Path) -> None:
    global _corpus
    _corpus = Corpus(folder, Bases(folder / "bases"))


def _faults(number: int) -> tuple[float, list[str]]:
    begun = time.monotonic()  # by number: what damages does not pickle
    try:
        faults = _corpus.faults(CASES[number])
    except Exception as fault:  # of the damage itself: a case that cannot be made is a mistake here
        faults = [f"not made: {fault!r}"]
    return time.monotonic() - begun, faults


if __name__ == "__main__":
    sys.exit(main())
