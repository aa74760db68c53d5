"""What the whole test session shares."""

from __future__ import annotations

import sys

import pytest


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let megatron-core be imported in the background where a selected test's module uses the fixture."""
    modules = {item.module for item in session.items if isinstance(item, pytest.Function)}
    used = {getattr(value, "__module__", None) or "" for module in modules for value in vars(module).values()}
    ranks = sys.modules.get("mcore.ranks")  # absent where a module wants no more than tiny configs
    if ranks and any(name.startswith("mcore.") for name in used) and not session.config.option.collectonly:
        ranks.prepare()
