"""What was measured is told at the end."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Every figure that a test recorded, one line each."""
    reports = [r for found in terminalreporter.stats.values() for r in found if isinstance(r, pytest.TestReport)]
    lines = [(r.nodeid, *pair) for r in reports if r.when == "call" for pair in r.user_properties]
    if lines:
        terminalreporter.section("vLLM against transformers")
    for nodeid, _, value in lines:
        terminalreporter.write_line(f"{nodeid.partition('::')[2]}: {value}")
