"""The process that ranks are forked from: imports megatron-core once, then forks a job's ranks for each line on stdin.

Protocol: a line `world timeout folder` in; a line `rank status` out, of the rank that failed first, or `-1 0` (a
negative status is the signal that ended it).
The folder holds the pickled job and receives each rank's result and output.
"""

from __future__ import annotations

import gc
import importlib
import os
import pickle
import signal
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.utils.serialization.config

# Imported for the forks: what is loaded here need not be loaded in each rank.
from megatron.core.dist_checkpointing.strategies import torch as _strategies  # noqa: F401

from . import cpu, fsdp, live, reading, running, writing  # noqa: F401

GRACE = 3.0
"""Seconds that the other ranks get to fail by themselves after the first failure; they mostly hang in a collective."""


def main() -> None:
    """Serve jobs until stdin ends, which it does when the test process ends in whatever way."""
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    # readline, not iteration: iterating over stdin reads ahead.
    while line := sys.stdin.readline():
        world, timeout, folder = line.split(maxsplit=2)
        print(*_job(int(world), int(timeout), Path(folder.strip())), flush=True)


def _job(world: int, timeout: int, folder: Path) -> tuple[int, int]:
    pids: list[int] = []
    function, args = pickle.loads((folder / "job").read_bytes())  # once, not in each rank
    for rank in range(world):
        pid = os.fork()
        if pid == 0:
            _rank(rank, world, timeout, folder, function, args)
        pids.append(pid)
    return _wait(pids)


def _wait(pids: list[int]) -> tuple[int, int]:
    """Wait for all; the first that failed and its status. After it the others get a moment, then are killed."""
    first, living, deadline = (-1, 0), set(pids), None
    while living:
        pid, status = os.waitpid(-1, 0 if deadline is None else os.WNOHANG)
        if pid:
            living.discard(pid)
            if status and deadline is None:
                first, deadline = (pids.index(pid), os.waitstatus_to_exitcode(status)), time.monotonic() + GRACE
        elif time.monotonic() < (deadline or 0):
            time.sleep(0.02)
        else:
            for other in living:
                os.kill(other, signal.SIGKILL)
            deadline = time.monotonic() + GRACE
    return first


def _rank(rank: int, world: int, timeout: int, folder: Path, function: str, args: tuple[Any, ...]) -> None:
    """Be a rank: never returns. The alarm's default action ends the process, so nothing outlives its time."""
    signal.alarm(timeout)
    status = 1
    try:
        log = os.open(folder / f"{rank}.log", os.O_CREAT | os.O_WRONLY)
        os.dup2(log, 1)
        os.dup2(log, 2)
        module, name = function.split(":")
        cpu.pretend()
        store = f"file://{folder / 'store'}"
        torch.distributed.init_process_group(
            "gloo", init_method=store, rank=rank, world_size=world, timeout=timedelta(seconds=timeout)
        )
        result = getattr(importlib.import_module(module), name)(*args)
        (folder / f"{rank}.result").write_bytes(pickle.dumps(result))
        torch.distributed.barrier()  # gloo's connections must outlive the slowest rank
        status = 0
    except BaseException:  # a fork must never unwind into the nursery's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main()
