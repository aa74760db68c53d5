"""What processes of a run tell each other."""

from __future__ import annotations

import traceback
from typing import Any, NamedTuple

from ..errors import VlconvError
from .team import Task


class Order(NamedTuple):
    """To all: do your share of this, in this directory."""

    number: int
    directory: str
    task: Task


class Beat(NamedTuple):
    """I am here; so many bytes of that task are done."""

    number: int = 0
    nbytes: int = 0


class Told(NamedTuple):
    """To rank 0: what was found."""

    what: Any


class Finished(NamedTuple):
    """To rank 0: my share is done."""

    nbytes: int


class Failed(NamedTuple):
    """To rank 0: an error stopped me, and where it came from."""

    fault: Exception
    trace: str = ""


class Signalled(NamedTuple):
    """To rank 0: a signal ended me."""

    number: int


class End(NamedTuple):
    """To all: the run is over, leave with that exit code."""

    code: int


Word = Beat | Told | Finished | Failed | Signalled | End


class Elsewhere(Exception):
    """The traceback of another process, for --debug."""

    def __str__(self) -> str:
        return f"in another process\n{self.args[0]}"


def failed(fault: BaseException) -> Failed:
    """An error as it can be told to another process, which may know no class of a library."""
    trace = "".join(traceback.format_exception(fault))
    if isinstance(fault, VlconvError | OSError):
        return Failed(fault, trace)
    if isinstance(fault, MemoryError):
        return Failed(MemoryError(), trace)
    return Failed(RuntimeError(f"{type(fault).__name__}: {fault}"), trace)
