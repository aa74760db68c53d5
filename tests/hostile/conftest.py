"""The corpus of a test session: bases shared by all workers of it, a nursery for each."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from hostile.bases import Bases
from hostile.running import Corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Corpus]:
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    corpus = Corpus(tmp_path_factory.mktemp("hostile"), Bases(shared / "hostile-bases"))
    yield corpus
    corpus.nursery.stop()
