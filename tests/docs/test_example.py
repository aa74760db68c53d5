"""docs/examples/sync_two_ranks.py, as a reader runs it; docs/inside-a-trainer.md shows its heart."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
EXAMPLE = DOCS / "examples" / "sync_two_ranks.py"


def said(script: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_logits_are_those_of_megatron_core() -> None:
    ran = said(EXAMPLE)
    found = re.fullmatch(r"largest difference between logits of up to (.+): (.+)\n", ran.stdout)
    assert found, ran.stdout + ran.stderr[-2000:]
    assert float(found[1]) > 0.1 and float(found[2]) < 1e-5


@pytest.mark.slow
def test_elements_in_another_place_are_noticed(tmp_path: Path) -> None:
    script, text = tmp_path / "wrong.py", EXAMPLE.read_text()
    wrong = text.replace("rank_at(number, TP, topology)", "rank_at(1 - number, TP, topology)")
    assert wrong != text
    script.write_text(wrong)
    ran = said(script)
    assert ran.returncode and "AssertionError" in ran.stderr


def test_the_page_shows_its_heart() -> None:
    shown = re.findall(r"^```text\n(ours, theirs.*?)^```$", (DOCS / "inside-a-trainer.md").read_text(), re.M | re.S)
    assert len(shown) == 1 and textwrap.indent(shown[0], "    ") in EXAMPLE.read_text()
