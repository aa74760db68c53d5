"""Hostile pickles (pickles.py), by the real command."""

from __future__ import annotations

from hostile.case import Case
from hostile.checking import cases, check
from hostile.pickles import PICKLES
from hostile.running import Corpus


@cases(PICKLES)
def test_pickles(corpus: Corpus, case: Case) -> None:
    check(corpus, case)
