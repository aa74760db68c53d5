"""Which vlconv is measured: the one of this checkout, installed or not, or what the environment variable VLCONV says.

build/bench/path/vlconv holds links to its folders; that folder
stands first on the path of this process and of all that it starts.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
LINKS = ROOT / "build" / "bench" / "path"
TESTS = ROOT / "tests"


def put_first() -> None:
    """Make the links, and put them before whatever vlconv is installed."""
    package = LINKS / "vlconv"
    package.mkdir(parents=True, exist_ok=True)
    for source in (ROOT / ".package" / "vlconv").iterdir():
        link = package / source.name
        if source.name != "__pycache__" and not link.is_symlink():
            with suppress(FileExistsError):  # another run was faster
                link.symlink_to(source)
    for gone in (link for link in package.iterdir() if link.is_symlink() and not link.exists()):
        gone.unlink(missing_ok=True)
    sys.path[:0] = [str(LINKS), str(TESTS)]


def vlconv(*arguments: object) -> list[str]:
    """The command line of vlconv, as a user runs it."""
    given = os.environ.get("VLCONV")
    command = shlex.split(given) if given else [sys.executable, "-m", "vlconv"]
    return [*command, *map(str, arguments)]


def module(name: str, *arguments: object) -> list[str]:
    """The command line of a module of the bench, which finds others of it."""
    path = os.pathsep.join([str(TESTS), *_given_path()])
    return ["env", f"PYTHONPATH={path}", sys.executable, "-m", name, *map(str, arguments)]


def environment() -> dict[str, str]:
    """What every measured process gets: no GPU, no network, no more words than needed, and this checkout's vlconv."""
    path = [*([] if os.environ.get("VLCONV") else [str(LINKS)]), *_given_path()]
    quiet = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **quiet, "PYTHONPATH": os.pathsep.join(path)}


def _given_path() -> list[str]:
    """PYTHONPATH as it was given, but for what only the bench itself needs."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return [entry for entry in given if entry and Path(entry).resolve() != TESTS]


def revision() -> str | None:
    """The commit of this checkout, where git knows it; "-dirty" where files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude", "*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
