"""A model is run in a process of its own: what it takes is given back, what it patches is patched there alone.

The child is started by exec. It hears on stdin what to do, says one line of JSON when it is done, and what libraries
print is kept for the case that it fails.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from tempfile import TemporaryFile
from typing import IO, Any

from ...errors import NotComparable, shown
from ...signals import Waiting

FEWER = "With --layers N the first N layers alone are run, which takes less memory."

ENVIRONMENT = {
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # without it torch does not promise equal sums of equal numbers on a GPU
    "HF_HUB_OFFLINE": "1",
    "NVIDIA_TF32_OVERRIDE": "0",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "0",  # which NVIDIA's containers set to 1
    "TRANSFORMERS_OFFLINE": "1",
    "USE_HUB_KERNELS": "0",
}
"""What every child has beside the environment of this process: no network, float32 in full, and sums that are the same
each time.
"""

NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
"""More of it for a child that computes on the CPU: a GPU is not even looked for."""

SAID = 4096
"""Bytes of what a failed child has printed last that are looked at."""


def run_child(
    module: str, feed: Callable[[IO[bytes]], object], *, does: str, environment: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run a module of this package as a program, and return its answer.

    Args:
        module: "vlconv.….child", whose main calls `serving.serve`.
        feed: writes to its stdin: a line of JSON, and what else the module asks for.
        does: what the process does, for messages: "runs transformers".
        environment: more variables.

    Raises:
        NotComparable: the module says why it cannot do it, or the process died.
    """
    child = None
    with TemporaryFile() as said:
        try:
            with Waiting():  # a signal between the start and the assignment would leave it alone
                child = _started(module, said, environment or {}, does)
            assert child.stdin is not None
            assert child.stdout is not None
            with suppress(BrokenPipeError):  # it died: why is asked below
                feed(child.stdin)
            with suppress(BrokenPipeError):
                child.stdin.close()
            answer = child.stdout.read()
        except BaseException:
            if child is not None:
                child.kill()
            raise
        finally:
            if child is not None:
                with suppress(BrokenPipeError), child:  # closes its pipes and waits
                    pass
        return _answer(answer, child.returncode, said, does)


def _started(module: str, said: IO[bytes], environment: Mapping[str, str], does: str) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            env={**os.environ, **ENVIRONMENT, **environment},
        )
    except OSError as fault:
        raise NotComparable(
            f"the process that {does} cannot be started: {fault.strerror}",
            "The machine lacks memory, processes or open files: try again when it has some.",
        ) from None


def _answer(data: bytes, status: int, said: IO[bytes], does: str) -> dict[str, Any]:
    """What a child said last; what it says is data like that of any file."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if status or not isinstance(found, dict):
        raise NotComparable(f"the process that {does} {_death(status, said)}", FEWER)
    if isinstance(fault := found.get("fault"), dict):
        raise NotComparable(shown(fault.get("what"), 500), shown(fault.get("hint") or "", 500))
    return found


def _death(status: int, said: IO[bytes]) -> str:
    if status == -signal.SIGKILL:
        return "was killed: the machine ran out of memory, or somebody ended it"
    if status < 0:
        return f"crashed: {shown(signal.strsignal(-status))}"
    said.seek(max(0, said.seek(0, os.SEEK_END) - SAID))
    lines = said.read().decode(errors="replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"ended with status {status}: {shown(last, 300) or 'it said nothing'}"
