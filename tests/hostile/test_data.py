"""Damaged data (data_files.py, legacy.py, weights.py, hf_files.py, peft.py), by the real command."""

from __future__ import annotations

from hostile.case import Case
from hostile.checking import cases, check
from hostile.data_files import DATA_FILES
from hostile.hf_files import HF_FILES
from hostile.legacy import LEGACY
from hostile.peft import PEFT
from hostile.running import Corpus
from hostile.weights import WEIGHTS


@cases(DATA_FILES, LEGACY, WEIGHTS, HF_FILES, PEFT)
def test_data(corpus: Corpus, case: Case) -> None:
    check(corpus, case)
