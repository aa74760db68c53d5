"""The same sources before the other commands that read them: every reading path refuses what the first one does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hostile.bases import MCORE
from hostile.case import Case, Expected
from hostile.checking import check
from hostile.running import Corpus
from hostile.table import CASES

pytestmark = pytest.mark.slow


def other(case: Case, command: str) -> Case:
    """The case for another command, whose words may be others and whose output is not looked into."""
    return replace(case, command=command, expected=Expected(case.expected.outcomes, differs=True))


READ = [case for case in CASES if not (case.slow or case.options or case.command)]
CHANGED = [case for case in READ if case.base in MCORE]


@pytest.mark.parametrize("case", READ, ids=str)
def test_verify(corpus: Corpus, case: Case) -> None:
    check(corpus, other(case, "verify"))


@pytest.mark.parametrize("case", CHANGED, ids=str)
def test_mcore2mcore(corpus: Corpus, case: Case) -> None:
    check(corpus, other(case, "mcore2mcore"))
