"""The same sources before the other commands that read them: every reading path refuses what the first one does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hostile.bases import MCORE
from hostile.case import Case, Expected
from hostile.checking import check
from hostile.configs import CONFIGS
from hostile.directories import DIRECTORIES
from hostile.running import Corpus
from hostile.statements import STATEMENTS
from hostile.table import CASES

pytestmark = pytest.mark.slow


def other(case: Case, command: str) -> Case:
    """The case for another command, whose words may be others and whose output is not looked into.

    verify says 3 where it cannot compare, and has no use for what stands beside weights, nor for a target.
    """
    verify = command == "verify"
    outcomes = case.expected.outcomes | ({"equal"} if verify and case in BESIDE else set())
    return replace(case, command=command, expected=Expected(outcomes, differs=True, codes=(1, 3) if verify else (1,)))


BESIDE = [case for kind in (DIRECTORIES, STATEMENTS, CONFIGS) for case in kind.cases]
READ = [case for case in CASES if not (case.slow or case.options or case.command)]
CHANGED = [case for case in READ if case.base in MCORE]


@pytest.mark.parametrize("case", READ, ids=str)
def test_verify(corpus: Corpus, case: Case) -> None:
    check(corpus, other(case, "verify"))


@pytest.mark.parametrize("case", CHANGED, ids=str)
def test_mcore2mcore(corpus: Corpus, case: Case) -> None:
    check(corpus, other(case, "mcore2mcore"))
