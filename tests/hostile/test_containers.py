"""Zips and tables that lie (zips.py, metadata.py), by the real command."""

from __future__ import annotations

from hostile.case import Case
from hostile.checking import cases, check
from hostile.metadata import METADATA
from hostile.running import Corpus
from hostile.zips import ZIPS


@cases(ZIPS, METADATA)
def test_containers(corpus: Corpus, case: Case) -> None:
    check(corpus, case)
