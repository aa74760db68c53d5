"""A command on a damaged source, for real, and what is held against every such run."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from .bases import BASES, Bases, expected_hf, expected_mcore, found_hf, found_mcore
from .case import SECRET, Case, Expected, Work

SECONDS = 10.0
"""Of processor time, descendants included: the machine may be busy with other tests."""

MEMORY = 700 << 20
"""Bytes beyond those of a process that has done nothing yet."""

WALL = 90
ADDRESSES = 12 << 30  # torch alone maps several; this only keeps a mistake from taking the machine along
VALUE = "not-for-anyone-4711"
TEXT = 20_000
"""Characters of stderr at most."""


@dataclass
class Ran:
    """What came of a command."""

    code: int
    hung: bool
    wall: float
    cpu: float
    memory: int
    orphans: int
    stdout: str = ""
    stderr: str = ""


class Nursery:
    """The process that forks commands (nursery.py), started when it is first asked.

    Args:
        command: what Python is called with instead.
    """

    def __init__(self, command: Sequence[str] = ("-m", "hostile.nursery")) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None

    def run(self, arguments: list[str], work: Work, wall: float = WALL) -> Ran:
        """`vlconv ARGUMENTS`, with the folders of `work` as its surroundings, for at most `wall` seconds."""
        out, err = work.folder / "stdout", work.folder / "stderr"
        for path in (out, err):
            path.unlink(missing_ok=True)
        request = {
            "argv": arguments,
            "cwd": str(work.folder),
            "env": environment(work),
            "out": str(out),
            "err": str(err),
            "wall": wall,
            "memory": ADDRESSES,
        }
        answer = self._ask(json.dumps(request))
        texts = (path.read_text(errors="replace") for path in (out, err))
        return Ran(**answer, **dict(zip(("stdout", "stderr"), texts, strict=True)))

    def _ask(self, line: str) -> Any:
        process = self._started()
        assert process.stdin and process.stdout
        process.stdin.write(line + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            paths = [str(Path(__file__).parents[1]), *(p for p in sys.path if p)]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
            env["OPENBLAS_NUM_THREADS"] = "1"
            self._process = subprocess.Popen(
                [sys.executable, *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=env,
                text=True,
            )
            atexit.register(self.stop)
            assert self._process.stdout
            assert self._process.stdout.readline() == "ready\n", "the nursery did not start"
        return self._process

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


def environment(work: Work) -> dict[str, str]:
    """What a command finds around it."""
    return {
        SECRET: VALUE,
        "CANARY": str(work.canary),
        "TMPDIR": str(work.temporary),
        "HOME": str(work.temporary),
        "HF_HUB_OFFLINE": "1",
    }


def whole_process(arguments: list[str], work: Work) -> Ran:
    """The same as `Nursery.run` with an interpreter of its own."""
    env = {**os.environ, **environment(work)}
    command = [sys.executable, "-m", "vlconv", *arguments]
    ran = subprocess.run(command, cwd=work.folder, env=env, capture_output=True, text=True, timeout=WALL, check=False)
    return Ran(ran.returncode, False, 0, 0, 0, 0, ran.stdout, ran.stderr)


def arguments(case: Case, work: Work) -> list[str]:
    """The command line of a case."""
    command = case.command or BASES[case.base].command
    target = [] if command == "verify" else [str(work.out)]
    return [command, str(work.read), *target, *(o.format(work=work) for o in case.options)]


class Corpus:
    """Runs cases, each on a copy of its base.

    Args:
        folder: for bases and copies; shared bases lie in `bases`.
    """

    def __init__(self, folder: Path, bases: Bases) -> None:
        self.folder, self.bases, self.nursery = folder, bases, Nursery()

    def faults(self, case: Case) -> list[str]:
        """Run it; what is not as expected, in words that begin with its kind (see `judge`)."""
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            work = self.bases.work(case.base, folder)
            case.damage(work)
            before = snapshot(work.source)
            ran = self.nursery.run(arguments(case, work), work)
            return judge(ran, work, case.base, case.expected, before)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def judge(ran: Ran, work: Work, base: str, expected: Expected, before: dict[str, Any]) -> list[str]:
    """What is wrong with a run, each in a line that begins with its kind.

    executed, silent, traceback, died, hung, slow, memory, orphans, leftover, source, outcome, unsaid, text.
    """
    found = [*promises(ran, work, before)]
    if ran.code == 0:
        found += _done(work, base, expected)
    elif ran.code in (1, 2, 3):
        found += _refused(ran, work, expected)
    else:
        found.append(f"died: exit code {ran.code}")
    if ran.code in expected.codes or "refused" not in expected.outcomes:
        found += [f"unsaid: {words!r}" for words in expected.says if not _says(ran.stderr, words)]
    return [*found, *(["---", ran.stderr[-4000:]] if found else [])]


def promises(ran: Ran, work: Work, before: dict[str, Any]) -> list[str]:
    """What holds whatever comes of a run."""
    text = ran.stdout + ran.stderr
    checks = {
        "executed: the canary was touched": contents(work.canary) != {"alive": "alive"},
        "executed: the environment was shown": VALUE in text,
        "traceback: in stderr": "Traceback (most recent" in text or "fault of vlconv" in text,
        f"hung: {WALL} s": ran.hung,
        f"slow: {ran.cpu:.1f} s": ran.cpu > SECONDS,
        f"memory: {ran.memory >> 20} MiB": ran.memory > MEMORY,
        f"orphans: {ran.orphans}": ran.orphans > 0,
        f"leftover: {sorted(p.name for p in work.temporary.iterdir())}": any(work.temporary.iterdir()),
        "source: changed": snapshot(work.source) != before,
        "text: acts on a terminal": any(not (c.isprintable() or c == "\n") for c in ran.stderr),
        f"text: {len(ran.stderr)} characters": len(ran.stderr) > TEXT,
    }
    return [what for what, wrong in checks.items() if wrong]


def _done(work: Work, base: str, expected: Expected) -> list[str]:
    found = _others(work, {work.out.name})
    if "equal" not in expected.outcomes:
        found.append("outcome: done where it is to be refused")
    if work.out.exists() and not expected.differs and not is_good(work.out, base):
        found.append("silent: done with another model")
    if work.out.exists() and any(VALUE in t for t in contents(work.out).values()):
        found.append("executed: the environment is in the output")
    return found


def _refused(ran: Ran, work: Work, expected: Expected) -> list[str]:
    found = _others(work, set())
    if "refused" not in expected.outcomes or ran.code not in expected.codes:
        found.append(f"outcome: exit code {ran.code}")
    lines = ran.stderr.splitlines()
    first = [i for i, line in enumerate(lines) if re.match("(error|not comparable): ", line)]
    if len(first) != 1:
        found.append(f"text: {len(first)} lines that begin with an error")
    elif not lines[-1].startswith("  ") or len(lines) == first[0] + 1:
        found.append("text: no hint")
    return found


def _others(work: Work, made: set[str]) -> list[str]:
    """What is in the target's folder and should not be, and what should be and is not."""
    there = {p.name for p in work.target.iterdir()} - made
    return [f"leftover: {sorted(there ^ work.standing)}"] if there != work.standing else []


def _says(text: str, words: str | tuple[str, ...]) -> bool:
    return any(w.lower() in text.lower() for w in ((words,) if isinstance(words, str) else words))


def is_good(out: Path, base: str) -> bool:
    """Whether an output holds the base's model, every bit of it."""
    try:
        if BASES[base].command == "mcore2hf":
            return found_hf(out) == _expected(base)
        return found_mcore(out) == _expected(base)
    except Exception as fault:  # an output that cannot be read is another model, whatever it is
        print(f"cannot be read: {fault!r}")
        return False


@cache
def _expected(base: str) -> Any:
    return expected_hf(base) if BASES[base].command == "mcore2hf" else expected_mcore(base)


def snapshot(folder: Path) -> dict[str, Any]:
    """Every entry below, by what changes when it is written to."""
    return {
        str(p.relative_to(folder)): (s.st_ino, s.st_mode, s.st_size, s.st_mtime_ns)
        for p in sorted(folder.rglob("*"))
        for s in (p.lstat(),)
    }


def contents(folder: Path) -> dict[str, str]:
    """Every file below, as text."""
    return {
        str(p.relative_to(folder)): p.read_text("latin-1")
        for p in sorted(folder.rglob("*"))
        if p.is_file() and not p.is_symlink()
    }
