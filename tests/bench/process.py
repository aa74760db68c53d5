"""A process, run to its end and measured.

Time is of the whole process, start included. CPU seconds are the system's own account of it and of what it waited for.
Memory is the largest sum of anonymous and shared pages (RssAnon + RssShmem) of the process and its descendants, looked
at every hundredth of a second: pages of mapped files are the page cache's, and counted nowhere.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import BinaryIO, NamedTuple

from .checkout import environment

EVERY = 0.01
"""Seconds between two looks at memory."""

_PAGES = re.compile(rb"Rss(?:Anon|Shmem):\s+(\d+) kB")


class Run(NamedTuple):
    """A finished process.

    Attributes:
        seconds: from start to end.
        cpu: user and system seconds, those of descendants included.
        anonymous: bytes, at most, of all together.
        own_cpu, own_anonymous: of the process itself.
        child_anonymous: bytes, at most, of one descendant.
        child_seconds: while there was a descendant.
    """

    seconds: float
    cpu: float
    anonymous: int
    own_cpu: float
    own_anonymous: int
    child_anonymous: int
    child_seconds: float


class Failed(Exception):
    """A process that ended with an error; the text holds its command and its last words."""

    def __init__(self, command: Sequence[str], code: int, said: str) -> None:
        self.last = next((line for line in reversed(said.splitlines()) if line.strip()), f"ended with {code}")
        super().__init__(f"{shlex.join(command)[:2000]}\nended with {code}\n{said}")


def measure(command: Sequence[str]) -> Run:
    """Run a command to its end.

    Raises:
        Failed: it ended with another code than 0.
    """
    with tempfile.TemporaryFile() as words:
        begun = time.monotonic()
        child = _start(command, words)
        watch = _Watch(child.pid)
        try:
            watch.start()
            os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
            ended = time.monotonic()
            watch.stop()
            own = _own_cpu(child.pid)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            _kill(child)
            raise
        finally:
            watch.stop()
        if child.returncode:
            words.seek(0)
            raise Failed(command, child.returncode, words.read().decode(errors="replace")[-4000:])
    cpu = usage.ru_utime + usage.ru_stime
    return Run(ended - begun, cpu, watch.together, own, watch.own, watch.child, watch.child_seconds)


def _start(command: Sequence[str], words: BinaryIO) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=words,
        env=environment(),
        start_new_session=True,  # so that all of it can be ended together
    )


def _kill(child: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _own_cpu(pid: int) -> float:
    """User and system seconds of an ended process alone, before it is waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Watch(Thread):
    """Looks at the memory of a process and its descendants until it is stopped."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.together = self.own = self.child = 0
        self.child_seconds = 0.0
        self._pid, self._over = pid, Event()
        self._open: dict[int, int] = {}  # pid -> descriptor of its status

    def stop(self) -> None:
        """Look no more."""
        if not self._over.is_set():
            self._over.set()
            if self.is_alive():
                self.join()

    def run(self) -> None:
        """Until stopped."""
        last = time.monotonic()
        try:
            while True:
                alone = self._look()
                now = time.monotonic()
                self.child_seconds += 0 if alone else now - last
                last = now
                if self._over.wait(EVERY):
                    return
        finally:
            for descriptor in self._open.values():
                os.close(descriptor)

    def _look(self) -> bool:
        """Returns whether the process is alone."""
        own, *others = [self._anonymous(pid) for pid in family(self._pid)]
        self.together = max(self.together, own + sum(others))
        self.own = max(self.own, own)
        self.child = max([self.child, *others])
        return not others

    def _anonymous(self, pid: int) -> int:
        try:
            if pid not in self._open:
                self._open[pid] = os.open(f"/proc/{pid}/status", os.O_RDONLY)
            status = os.pread(self._open[pid], 8192, 0)
        except OSError:  # it is over
            return 0
        return 1024 * sum(map(int, _PAGES.findall(status)))


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for member in found:
        try:
            for task in os.scandir(f"/proc/{member}/task"):
                with open(f"{task.path}/children", "rb") as children:
                    found += map(int, children.read().split())
        except OSError:  # it is over
            pass
    return found
