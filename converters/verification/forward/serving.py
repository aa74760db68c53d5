"""What a process that runs a model does first and last: it is asked on stdin, and answers on stdout with one line."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ...errors import NotComparable, VlconvError, shown, shown_path
from .child import FEWER

if TYPE_CHECKING:
    from ...tensors.spec import Array

PR_SET_PDEATHSIG = 1


def serve(work: Callable[[dict[str, Any], IO[bytes]], dict[str, Any]]) -> None:
    """Do what is asked, and end.

    Args:
        work: gets what the first line of stdin says and stdin, which may hold more; returns the answer. A VlconvError
            becomes the other process' error; of any other exception that shows the last line of its traceback.
    """
    end_with_parent()
    answers = _own_stdout()
    try:
        answer = work(json.loads(sys.stdin.buffer.readline()), sys.stdin.buffer)
    except VlconvError as fault:
        answer = {"fault": {"what": fault.what, "hint": fault.hint}}
    answers.write(json.dumps(answer).encode() + b"\n")
    answers.close()
    os._exit(0)  # to take a model of many tensors apart takes longer than to end


@contextmanager
def saying_what_takes_less() -> Iterator[None]:
    """Within it memory that runs out is an error that says what takes less of it."""
    try:
        yield
    except Exception as fault:
        if isinstance(fault, MemoryError) or type(fault).__name__ == "OutOfMemoryError":  # torch's, of a GPU
            raise NotComparable("memory ran out while the model was run", FEWER) from fault
        raise


def in_full_precision() -> None:
    """Neither products nor convolutions of float32 are done in TF32 on a GPU."""
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def save_logits(path: Path, logits: Array) -> None:
    """Write a .npy file. Raises NotComparable: it cannot be written."""
    import numpy as np

    try:
        with path.open("wb") as file:
            np.save(file, logits)
    except OSError as fault:
        raise NotComparable(
            f"logits cannot be written to {shown_path(path.parent)}: {shown(fault.strerror or fault)}",
            "Set TMPDIR to a directory with more room.",
        ) from None


def end_with_parent() -> None:
    """Let the system kill this process when the one that started it is gone, however that ended."""
    with_parent = getattr(ctypes.CDLL(None), "prctl", None)
    if with_parent is not None:
        with_parent(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of Ctrl-C the other process hears, too, and kills this one


def _own_stdout() -> IO[bytes]:
    """The way of the answer; whatever else is printed goes to stderr from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers
