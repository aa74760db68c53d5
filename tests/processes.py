"""The command line in several processes of this machine, as a launcher starts them: forks of this one, which has torch.

Each is in a session of its own, so that a signal to it is met by no other.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from killing import warm

from vlconv import __main__

SECONDS = 90
"""After which a process that hangs is ended by SIGALRM, which no test expects."""

Says = Callable[[int, int], dict[str, object]]
"""What a launcher says to a process: given its rank, and how many there are, variables of its environment."""

Prepare = Callable[[int], object]
"""Called in a new process, with its rank: what is otherwise there."""


def usual(rank: int, size: int) -> dict[str, object]:
    """As torchrun."""
    return {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}


class Ended(NamedTuple):
    """A process that is over.

    Attributes:
        code: exit code; negative: the signal that ended it.
        said: what it printed to stdout and stderr.
    """

    code: int
    said: str


class Job:
    """Processes that are at work.

    Args:
        args: of the command line.
        size: how many processes there are.
        prepare: see there.
        absent: ranks that do not come.
        says: what each is told of its place.
        environ: is otherwise in the environment of all.

    Attributes:
        pids: of each rank.
    """

    def __init__(
        self,
        args: Sequence[object],
        size: int,
        prepare: Prepare = lambda rank: None,
        absent: Collection[int] = (),
        says: Says = usual,
        **environ: object,
    ) -> None:
        import torch.distributed  # noqa: F401 # once, not in each fork

        warm()
        self.port = free_port()
        self._pipes: list[int] = []
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": self.port}
        there = (rank for rank in range(size) if rank not in absent)
        self.pids = [
            self._fork([str(a) for a in args], rank, prepare, says(rank, size) | meeting | environ) for rank in there
        ]

    def _fork(self, args: list[str], rank: int, prepare: Prepare, environ: dict[str, object]) -> int:
        said, says = os.pipe()
        if process := os.fork():
            os.close(says)
            self._pipes.append(said)
            return process
        os.environ.update({name: str(value) for name, value in environ.items()})
        child(args, says, lambda: prepare(rank))
        raise AssertionError

    def kill(self, rank: int, number: signal.Signals = signal.SIGKILL) -> None:
        os.kill(self.pids[rank], number)

    def ended(self) -> list[Ended]:
        """Wait for all."""
        said = []
        for pipe in self._pipes:
            with open(pipe, encoding="utf-8", errors="replace") as words:
                said.append(words.read())
        return [
            Ended(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), words)
            for pid, words in zip(self.pids, said, strict=True)
        ]


def run(args: Sequence[object], size: int, prepare: Prepare = lambda rank: None, **how: Any) -> list[Ended]:
    """Run a command in so many processes, and wait for all. Arguments as Job."""
    return Job(args, size, prepare, **how).ended()


def document(said: str) -> dict[str, Any]:
    """The result that --json prints, behind whatever else was printed."""
    found: dict[str, Any] = json.loads(said[said.index("{\n") :])
    return found


def child(args: list[str], says: int, prepare: Callable[[], object]) -> None:
    """The new process."""
    code = 1
    try:
        os.setsid()
        for number in (1, 2):
            os.dup2(says, number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", buffering=1, closefd=False)
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr  # type: ignore[misc]
        sys.argv = ["vlconv", *args]
        signal.alarm(SECONDS)
        os.fsync = lambda fd: None  # a disk that others write to may take its time
        prepare()
        __main__.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    """Until it is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.005)
