"""Run a function on N gloo ranks, each a forked process.

    results = run(4, "module:function", argument, ...)   # results[rank]

A nursery process imports megatron-core once (5 s, in the background if `prepare()` is called early) and forks the ranks of every run from there, in a fraction of
a second. So the process that forks has no threads and no process group, whatever the test process did before. What a rank prints is kept for its error message.
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


class RankError(RuntimeError):
    """A rank raised, died or ran out of time; the text holds its traceback."""


def prepare() -> None:
    """Start the nursery, if it does not run yet; returns at once, the import goes on in the background."""
    global _nursery
    if _nursery is not None and _nursery.poll() is None:
        return
    paths = [str(Path(__file__).parents[1]), *(p for p in sys.path if p)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    # stderr goes to a file of its own: a full pipe that nobody reads would stop the nursery.
    with tempfile.TemporaryFile() as noise:
        command = [sys.executable, "-m", "mcore.nursery"]
        _nursery = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise, env=env, text=True)
    atexit.register(_end, _nursery)


def _end(nursery: subprocess.Popen[str]) -> None:
    for pipe in (nursery.stdin, nursery.stdout):
        if pipe:
            pipe.close()
    try:
        nursery.wait(5)
    except subprocess.TimeoutExpired:
        nursery.kill()


def run(world: int, function: str, *args: Any, timeout: int = 120) -> list[Any]:
    """Call `function(*args)` on `world` ranks of one gloo process group.

    Args:
        world: number of ranks.
        function: "module:function", named so that the test process need not import it; it finds its rank by torch.distributed.get_rank().
        args: anything that pickles.
        timeout: seconds after which every rank is killed.

    Returns:
        What each rank returned, by rank.

    Raises:
        RankError: a rank raised or died, with the traceback and the output of the first such rank.
    """
    prepare()
    assert _nursery is not None and _nursery.stdin is not None and _nursery.stdout is not None
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        job = Path(folder)
        (job / "job").write_bytes(pickle.dumps((function, args)))
        try:
            _nursery.stdin.write(f"{world} {timeout} {folder}\n")
            _nursery.stdin.flush()
        except BrokenPipeError:
            raise RankError("the nursery died: does `python -m mcore.nursery` import?") from None
        statuses = _nursery.stdout.readline().split()
        if len(statuses) != world:
            raise RankError("the nursery died: does `python -m mcore.nursery` import?")
        return [_result(job, rank, statuses) for rank in range(world)]


def _result(job: Path, rank: int, statuses: list[str]) -> Any:
    """A rank's result; when any rank failed, the error of the first one that failed by itself, not by being killed after another."""
    if set(statuses) != {"0"}:
        guilty = next((i for i, s in enumerate(statuses) if int(s) > 0), next(i for i, s in enumerate(statuses) if s != "0"))
        log = (job / f"{guilty}.log").read_text(errors="replace")
        raise RankError(f"rank {guilty} of {len(statuses)} ended with status {statuses[guilty]} (-14: out of time)\n{log[-8000:]}")
    return pickle.loads((job / f"{rank}.result").read_bytes())
