"""Cases as pytest parameters."""

from __future__ import annotations

from typing import Any

import pytest

from .case import Case, Kind
from .running import Corpus


def cases(*kinds: Kind) -> Any:
    """A test's parameter `case`: every case of some kinds, marked slow but for every third of the quick."""
    listed = [case for kind in kinds for case in kind.cases]
    often = [case for case in listed if not case.slow][::3]
    marked = [pytest.param(c, id=c.name, marks=[] if c in often else [pytest.mark.slow]) for c in listed]
    return pytest.mark.parametrize("case", marked)


def check(corpus: Corpus, case: Case) -> None:
    """Run a case; fail with what is not as expected."""
    faults = corpus.faults(case)
    assert not faults, "\n".join(faults)
