"""Endless damaged sources, by chance, each before the real command.

    python -m hostile.fuzz SECONDS [--seed N] [--jobs N]     keeps what is neither refused in words nor comes out good
    python -m hostile.fuzz --seed N --one M                  one of them again

What no reader can see is left out: numbers of safetensors files, which keep no sums; their dtypes; and consistent
forgeries, such as two tensors of one shape that have each other's places.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from .bases import BASES, Bases
from .case import Case, Work, either
from .mutations import mutate
from .running import Corpus, arguments, judge, snapshot
from .table import CASES

KEPT = Path(__file__).parents[2] / "build" / "fuzz"
UNSEEN = ("without a sum", "without sums", "keeps no sums")
SEEDS = [c for c in CASES if not (c.slow or c.expected.differs or any(u in c.name for u in UNSEEN))]
"""Damaged sources that are damaged further."""

_corpus: Corpus


def main() -> int:
    """Fuzz; 0 when every outcome was right."""
    parser = argparse.ArgumentParser(prog="python -m hostile.fuzz", description="Damage by chance.")
    parser.add_argument("seconds", type=float, nargs="?", default=3600.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--one", type=int, help="this input alone, shown whole")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--kept", type=Path, default=KEPT)
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    try:
        _begin(folder)
        if asked.one is not None:
            title, _, faults = tried((asked.seed, asked.one, asked.kept))
            print(title, *faults, sep="\n")
            return int(bool(faults))
        return run(asked.seconds, asked.seed, asked.jobs, folder, asked.kept)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(seconds: float, seed: int, jobs: int, folder: Path, kept: Path) -> int:
    """Try inputs until the time is up; print what was found and how many there were."""
    print(f"seed {seed}, {seconds:.0f} s, {jobs} at a time; findings go to {kept}", flush=True)
    for name in BASES:
        _corpus.bases.of(name)
    end, broken, codes = time.monotonic() + seconds, Counter[str](), Counter[int]()
    room = threading.Semaphore(4 * jobs)  # the pool alone would take all inputs at once

    def numbers() -> Iterator[tuple[int, int, Path]]:
        number = 0
        while room.acquire() and time.monotonic() < end:
            yield seed, number, kept
            number += 1

    with multiprocessing.get_context("fork").Pool(jobs, _begin, (folder,)) as pool:
        for title, code, faults in pool.imap(tried, numbers()):
            room.release()
            codes[code] += 1
            if faults:
                said = faults[: faults.index("---")]
                broken.update({line.partition(":")[0] for line in said})
                print(title, *said, faults[-1][:300], sep="\n    ", flush=True)
    done = f"{codes.total()} inputs: {codes[1]} refused, {codes[0]} of the good output or as it told"
    print(f"{done}; {broken.total()} findings{': ' if broken else ''}{dict(broken) or ''}")
    return int(bool(broken))


def _begin(folder: Path) -> None:
    global _corpus
    _corpus = Corpus(folder, Bases(folder / "bases"))


def tried(what: tuple[int, int, Path]) -> tuple[str, int, list[str]]:
    """One input: its title, the exit code and its faults. It is kept where it has any."""
    seed, number, kept = what
    chance = random.Random(f"{seed} {number}")
    folder = Path(tempfile.mkdtemp(dir=_corpus.folder))
    try:
        case, work, done = made(chance, folder)
        title = f"{seed} {number}: {case.name}; {'; '.join(done)}"
        before = snapshot(work.source)
        ran = _corpus.nursery.run(arguments(case, work), work)
        faults = judge(ran, work, case.base, either(), before)
        if faults:
            _keep(kept / f"{seed}-{number}", folder, title, faults)
        return title, ran.code, faults
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def made(chance: random.Random, folder: Path) -> tuple[Case, Work, list[str]]:
    """A good source, or one of the table's, damaged (further)."""
    case = Case("good", chance.choice(sorted(BASES)), lambda work: None, either())
    if chance.random() < 0.3:
        case = chance.choice(SEEDS)
    work = _corpus.bases.work(case.base, folder)
    case.damage(work)
    return case, work, mutate(work, chance, _corpus.bases.of(case.base)) if work.source.is_dir() else []


def _keep(place: Path, folder: Path, title: str, faults: list[str]) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    again = "python -m hostile.fuzz --seed {} --one {}".format(*title.partition(":")[0].split())
    (place / "README").write_text("\n".join((title, again, *faults)) + "\n")
    shutil.copytree(folder / "source", place / "source", symlinks=True, copy_function=_copied)


def _copied(source: str, target: str) -> None:
    if Path(source).is_file():  # of a fifo there is nothing to copy
        shutil.copyfile(source, target)


if __name__ == "__main__":
    sys.exit(main())
