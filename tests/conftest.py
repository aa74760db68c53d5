"""What the whole test session shares."""

from __future__ import annotations

import sys

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let megatron-core be imported in the background, where a collected module has its ranks to run."""
    ranks = sys.modules.get("mcore.ranks")
    modules = {item.module for item in session.items if isinstance(item, pytest.Function)}
    if ranks and not session.config.option.collectonly and any(getattr(value, "__module__", "").startswith("mcore.") for m in modules for value in vars(m).values()):
        ranks.prepare()
