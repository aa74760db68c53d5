"""The same sources before repair, which refuses them, and verify --like, which tells of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp

import pytest

from hostile.case import Case, Damage, Expected, Work
from hostile.checking import check
from hostile.running import Corpus, promises, snapshot
from hostile.table import CASES

READ = [case for case in CASES if case.base in ("hf", "sharded") and not (case.slow or case.options or case.command)]
OFTEN = 16
"""Of so many cases one is in `make test`."""

UNDO = ("--undo", "qkv-groups-as-flat")
LIKE = ("--like", "{work.folder}/good")


def sampled(cases: list[Case], begin: int) -> list[object]:
    marks = [[] if at % OFTEN == begin else [pytest.mark.slow] for at in range(len(cases))]
    return [pytest.param(case, id=case.name, marks=mark) for case, mark in zip(cases, marks, strict=True)]


def beside_a_good_one(damage: Damage) -> Callable[[Work], None]:
    def damaged(work: Work) -> None:
        shutil.copytree(work.source, work.folder / "good", symlinks=True)
        damage(work)

    return damaged


@pytest.mark.parametrize("case", sampled(READ, 1))
def test_repair_by_name(corpus: Corpus, case: Case) -> None:
    """What a conversion refuses is refused, and what it reads comes out with another order."""
    expected = Expected(case.expected.outcomes, differs=True)
    check(corpus, replace(case, command="repair", options=UNDO, expected=expected))


@pytest.mark.parametrize("case", sampled(READ, 5))
def test_repair_by_a_good_one(corpus: Corpus, case: Case) -> None:
    """None of them is a permutation, so nothing is ever written."""
    damage, expected = beside_a_good_one(case.damage), Expected(frozenset({"refused"}), codes=(1, 3))
    check(corpus, replace(case, command="repair", options=LIKE, damage=damage, expected=expected))


@pytest.mark.parametrize("case", sampled(READ, 9))
def test_the_good_one_repaired_by_it(corpus: Corpus, case: Case) -> None:
    """The reference is a stranger's, too."""

    def damage(work: Work) -> None:
        beside_a_good_one(case.damage)(work)
        work.read = work.folder / "good"

    options, expected = ("--like", "{work.source}"), Expected(frozenset({"refused"}), codes=(1, 3))
    check(corpus, replace(case, command="repair", options=options, damage=damage, expected=expected))


@pytest.mark.parametrize("case", sampled(READ, 13))
@pytest.mark.parametrize("turned", [False, True], ids=["held", "reference"])
def test_like(corpus: Corpus, case: Case, turned: bool) -> None:
    """It ends with what was found, or refuses; whatever it says is safe, bounded, and quick."""
    folder = Path(mkdtemp(dir=corpus.folder))
    try:
        work = corpus.bases.work(case.base, folder)
        beside_a_good_one(case.damage)(work)
        before, pair = snapshot(work.source), [str(work.read), str(folder / "good")]
        held, like = pair[::-1] if turned else pair
        ran = corpus.nursery.run(["verify", held, "--like", like], work)
        assert not promises(ran, work, before), (promises(ran, work, before), ran.stderr[-2000:])
        assert ran.code in (0, 1, 3), ran.stderr
        assert ran.code == 3 or "looked at" in ran.stdout or "looked_at" in ran.stdout, ran.stdout
        assert (ran.code == 3) == ("not comparable: " in ran.stderr), ran.stderr
        assert all(c.isprintable() or c in "\n\t" for c in ran.stdout) and len(ran.stdout) < 20_000
    finally:
        shutil.rmtree(folder, ignore_errors=True)
