"""docs/when-it-refuses.md quotes messages as the code has them."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUOTED = re.findall(r"^### `(.+)`$", (ROOT / "docs" / "when-it-refuses.md").read_text(), re.MULTILINE)


@cache
def texts() -> set[str]:
    """Every text of the code, with … for what is put into it."""
    found = set()
    for path in (ROOT / "converters").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.add("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


def said(quoted: str) -> bool:
    return any(quoted in text for text in texts())


@pytest.mark.parametrize("quoted", QUOTED)
def test_each_message_is_one_of_the_code(quoted: str) -> None:
    assert said(quoted)


def test_another_word_is_noticed() -> None:
    assert len(QUOTED) > 20 and not said("the reference … has no config.yaml")
