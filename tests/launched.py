"""`python launched.py mcore2hf …`: the command line as a launcher starts it, of which a test is told.

In the environment AT_WORK is a folder in which every process that has done a part of the work leaves a file: its name
is the process' rank, and it holds the host and the process that has started it. PAUSE is the seconds that each window
takes, and FALLS the rank of a process that is killed, once, when it has left its file.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from vlconv import __main__
from vlconv.converters.conversion import fill
from vlconv.converters.output.writing.filled import Filled
from vlconv.converters.ranks import place_of
from vlconv.converters.verification.comparison import compare
from vlconv.converters.workers import Workers


def tell(folder: Path) -> None:
    """That this process is at work."""
    place = place_of(os.environ)
    name = str(place.rank if place else 0)
    again = (folder / name).exists()
    (folder / name).write_text(f"{socket.gethostname()} {os.getppid()}\n")
    if os.environ.get("FALLS") == name and not again:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(os.environ.get("PAUSE", "0")))


def told(function: Any, folder: Path) -> Any:
    """The same function, after which it is told."""

    def telling(*args: Any) -> None:
        function(*args)
        tell(folder)

    return telling


if __name__ == "__main__":
    folder = Path(os.environ["AT_WORK"])
    fill.workers_of = lambda threads, memory: Workers(2, 4096)  # type: ignore[assignment] # so that all have a share
    Filled.add = told(Filled.add, folder)  # type: ignore[method-assign]
    compare._Run._window = told(compare._Run._window, folder)  # type: ignore[method-assign]
    sys.argv[0] = "vlconv"
    __main__.main()
