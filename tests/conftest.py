"""What the whole test session shares."""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest

# What is compiled is kept, whatever the machine prefers: for the other worker, and for all processes that tests start.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_configure() -> None:
    """Nothing waits for the disk: no test loses power. A test of fsync has one of its own."""
    os.fsync = lambda fd: os.fstat(fd) and None  # type: ignore[assignment] # which refuses what is no open file


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a module with SAMPLED = n every n-th case of a test runs in `make test`, the others with the slow tests."""
    seen: Counter[str] = Counter()
    for item in items:
        every = getattr(getattr(item, "module", None), "SAMPLED", 1)
        if every > 1 and hasattr(item, "callspec") and not item.get_closest_marker("slow"):
            test = item.nodeid.partition("[")[0]
            if seen[test] % every:
                item.add_marker(pytest.mark.slow)
            seen[test] += 1


def pytest_collection_finish(session: pytest.Session) -> None:
    """Let megatron-core be imported in the background where a selected test's module uses the fixture."""
    modules = {item.module for item in session.items if isinstance(item, pytest.Function)}
    used = {getattr(value, "__module__", None) or "" for module in modules for value in vars(module).values()}
    ranks = sys.modules.get("mcore.ranks")  # absent where a module wants no more than tiny configs
    if ranks and any(name.startswith("mcore.") for name in used) and not session.config.option.collectonly:
        ranks.prepare()
