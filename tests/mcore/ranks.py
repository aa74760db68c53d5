"""Run a function on N gloo ranks, each a forked process.

    results = run(4, "module:function", argument, ...)   # results[rank]

A nursery process imports megatron-core once (5 s, in the background if `prepare()` is called early) and forks the ranks
of every run in a fraction of a second.
So the process that forks has no threads and no process group, whatever the test process did before. What a rank prints
is kept for its error message.
"""

from __future__ import annotations

import atexit
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

_nursery: subprocess.Popen[str] | None = None
_noise = tempfile.TemporaryFile("w+")  # noqa: SIM115 - lives as long as the nursery; a pipe that nobody reads would fill up and stop it


class RankError(RuntimeError):
    """A rank raised, died or ran out of time; the text holds its traceback."""


def prepare() -> None:
    """Start the nursery, if it does not run yet; returns at once, the import goes on in the background."""
    global _nursery
    if _nursery is not None and _nursery.poll() is None:
        return
    paths = [str(Path(__file__).parents[1]), *(p for p in sys.path if p)]
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
        # megatron-core has small functions of its forward pass compiled, which would cost every rank seconds.
        "TORCHDYNAMO_DISABLE": "1",
    }
    command = [sys.executable, "-m", "mcore.nursery"]
    _nursery = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=_noise, env=env, text=True
    )


@atexit.register
def _stop() -> None:
    """End the nursery; it would end by itself when its stdin does."""
    global _nursery
    if _nursery is not None:
        _nursery.kill()
        _nursery.communicate()
        _nursery = None


def run(world: int, function: str, *args: Any, timeout: int = 120) -> list[Any]:
    """Call `function(*args)` on `world` ranks of one gloo process group.

    Args:
        world: number of ranks.
        function: "module:function", named so that the test process need not import it; it finds its rank by
            torch.distributed.get_rank().
        args: anything that pickles.
        timeout: seconds after which every rank is killed.

    Returns:
        What each rank returned, by rank.

    Raises:
        RankError: a rank raised or died; with the output and traceback of the first that did.
    """
    prepare()
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        job = Path(folder)
        (job / "job").write_bytes(pickle.dumps((function, args)))
        failed, status = _ask(f"{world} {timeout} {folder}\n")
        if failed >= 0:
            log = (job / f"{failed}.log").read_text(errors="replace")
            raise RankError(f"rank {failed} of {world} ended with status {status} (-14: out of time)\n{log[-8000:]}")
        return [pickle.loads((job / f"{rank}.result").read_bytes()) for rank in range(world)]


def _ask(line: str) -> tuple[int, int]:
    """The nursery's answer: the rank that failed first, or -1, and its status."""
    assert _nursery is not None
    assert _nursery.stdin is not None
    assert _nursery.stdout is not None
    try:
        _nursery.stdin.write(line)
        _nursery.stdin.flush()
        rank, status = _nursery.stdout.readline().split()
    except (BrokenPipeError, ValueError):
        _noise.seek(0)
        raise RankError(f"the nursery died\n{_noise.read()[-8000:]}") from None
    except BaseException:
        _stop()  # or the next run would get this one's answer
        raise
    return int(rank), int(status)
