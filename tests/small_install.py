"""Environments with a few of the installed distributions and what those require, and nothing else.

    python = environment(tmp_path / "env", "typer", "numpy")
    ran = vlconv(python, "verify", directory)

The distributions are links into the environment that runs the tests, so one is made in a moment; vlconv is a link to
its source. What is not asked for cannot be found by anybody, neither as a module nor as a distribution.
"""

from __future__ import annotations

import os
import subprocess
import venv
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent


def environment(directory: Path, *names: str) -> Path:
    """Make a virtual environment of these distributions and what they require; returns its python."""
    venv.create(directory, symlinks=True, with_pip=False)
    (site,) = directory.glob("lib/python*/site-packages")
    for name in required(*names):
        found = distribution(name)
        for top in {file.parts[0] for file in found.files or []} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(str(found.locate_file(top)))
    package = site / "vlconv"
    package.mkdir()
    for source in (ROOT / ".package" / "vlconv").iterdir():
        (package / source.name).symlink_to(source)
    return directory / "bin" / "python"


def required(*names: str) -> set[str]:
    """Distributions, and all that they require here, extras aside."""
    found: set[str] = set()
    asked = list(names)
    while asked:
        name = asked.pop()
        if name not in found:
            found.add(name)
            needs = map(Requirement, distribution(name).requires or [])
            asked += [need.name for need in needs if not need.marker or need.marker.evaluate({"extra": ""})]
    return found


def run(python: Path, *arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run an environment's python, deaf to what the caller's environment says about modules."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [python, *map(str, arguments)]
    return subprocess.run(command, env=env, cwd=cwd, capture_output=True, text=True, timeout=120)


def vlconv(python: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run vlconv in an environment."""
    return run(python, "-m", "vlconv", *arguments, "--quiet")
