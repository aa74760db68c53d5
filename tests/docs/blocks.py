"""What of a page is run: its fenced blocks of `sh` and `python`, from top to bottom, in one folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All of a page, in order."""
    return [Block(*found) for found in FENCE.findall(page.read_text())]


def run_page(page: Path, folder: Path) -> None:
    """Run what is to be run, as a reader would who types one block after another.

    A `text` block shows something, and is not run.
    """
    runs = [block for block in blocks(page) if block.language in ("sh", "python")]
    assert runs, f"{page} has nothing to run"
    for block in runs:
        command = ["bash", "-eu", "-c", block.text] if block.language == "sh" else [sys.executable, "-c", block.text]
        ran = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120)
        said = f"{page.name}:\n{block.text}\n{ran.stdout[-2000:]}{ran.stderr[-2000:]}"
        assert ran.returncode == 0, said


def environment() -> dict[str, str]:
    """`vlconv` and `python` of the tests, and nothing to fetch."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {"PATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
