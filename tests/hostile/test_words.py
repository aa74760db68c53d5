"""What is stated and named (configs.py, statements.py, directories.py, names.py, hybrid.py), by the real command."""

from __future__ import annotations

from hostile.case import Case
from hostile.checking import cases, check
from hostile.configs import CONFIGS
from hostile.directories import DIRECTORIES
from hostile.fp8 import FP8
from hostile.hybrid import HYBRID
from hostile.names import NAMES
from hostile.running import Corpus
from hostile.statements import STATEMENTS


@cases(CONFIGS, STATEMENTS, DIRECTORIES, NAMES, HYBRID, FP8)
def test_words(corpus: Corpus, case: Case) -> None:
    check(corpus, case)
