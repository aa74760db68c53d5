"""The processes of a run meet: each says where it is, and torch.distributed connects them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from ... import __version__
from ..errors import RankError, naming_missing_libraries, shown
from .apart import EVERY, apart
from .line import FOREVER, Line
from .place import ALONE, MASTER, MEETING, PORT, Place

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

WAIT = 300.0
"""Seconds in which all must have come."""

ALL = "all"
"""Under this name rank 0 says that all have come; or what is wrong."""


class Refused(RankError):
    """What is wrong with all, as rank 0 says it."""


def meet(place: Place) -> tuple[Line, list[str]]:
    """Wait for all processes of the job, and connect them.

    Returns:
        the connections, and the host of each rank.

    Raises:
        RankError: not all came, or they cannot be connected.
        MissingLibrary: torch is not installed.
    """
    _check_said(place)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # what is wrong is said here
    with naming_missing_libraries():
        import torch.distributed as dist
    end = time.monotonic() + WAIT + 10

    def watch() -> None:
        if time.monotonic() > end:
            raise RankError(f"the processes could not be connected within {_minutes()}", _hint())

    def work() -> list[str]:
        try:
            return _met(place, time.monotonic() + WAIT)
        except RuntimeError as fault:
            raise RankError(f"the other processes cannot be reached: {_first(fault)}", _hint()) from fault

    if not dist.is_gloo_available():
        raise RankError("this torch was built without gloo", "Install a usual build of torch.")
    with _stdout_kept():
        return Line(place.rank, place.size), apart(work, watch)


def _check_said(place: Place) -> None:
    """Where processes meet must be said.

    Raises:
        Refused: it is not.
    """
    missing = [name for name, value in zip(MEETING, (place.master, place.port), strict=True) if not value]
    if not missing:
        return
    time.sleep(1 if place.rank else 0)  # launchers end all when one has ended, and rank 0 is to say why
    names = place.names
    raise Refused(
        f"{names.rank} and {names.size} say that this is process {place.rank} of {place.size}, but "
        f"{' and '.join(missing)}, where all are to meet, {'are' if missing[1:] else 'is'} not set",
        f"Set {MASTER} to the host of process 0 and {PORT} to a free port there, the same for all: with export before "
        f"srun, -x with mpirun, -genv with mpiexec; or {ALONE}.",
    )


def _met(place: Place, end: float) -> list[str]:
    import torch.distributed as dist

    store = dist.PrefixStore(f"vlconv {place.attempt}", _store(place))  # type: ignore[attr-defined]
    store.set(str(place.rank), f"{socket.gethostname()} {__version__}")
    if not place.rank:
        store.set(ALL, _missing(store, place, end))
    if not _there(store, [ALL], end + 5):
        raise _no_lead(place)
    if wrong := store.get(ALL).decode():
        time.sleep(0 if place.rank else 1)  # the others hear it, too
        raise Refused(wrong, _hint(place))
    dist.init_process_group("gloo", store=store, rank=place.rank, world_size=place.size, timeout=FOREVER)
    return [store.get(str(rank)).decode().split(" ")[0] for rank in range(place.size)]


def _store(place: Place) -> Store:
    """Where the processes meet.

    Raises:
        RankError: nobody waits for them there, or rank 0 cannot.
    """
    import torch.distributed as dist

    leads = not place.rank and not place.hosted
    try:
        return dist.TCPStore(  # type: ignore[attr-defined]
            place.master, place.port, is_master=leads, timeout=timedelta(seconds=WAIT), wait_for_workers=False
        )
    except RuntimeError as fault:
        if leads:
            what = f"the others cannot be waited for at {_where(place)}: {_first(fault)}"
            raise RankError(what, _hint(place)) from fault
        raise _no_lead(place) from fault


def _no_lead(place: Place) -> RankError:
    return RankError(f"waited {_minutes()} for rank 0 at {_where(place)}", _hint(place))


def _where(place: Place) -> str:
    return f"{MASTER} {shown(place.master)}, {PORT} {place.port}"


def _missing(store: Store, place: Place, end: float) -> str:
    """Wait for all; what is wrong, in words: who did not come, or is of another version."""
    if not _there(store, [str(rank) for rank in range(place.size)], end):
        absent = [str(rank) for rank in range(place.size) if not store.check([str(rank)])]
        return f"waited {_minutes()} for {place.size} processes: RANK {_listed(absent)} did not come"
    for rank in range(place.size):
        host, version = store.get(str(rank)).decode().split(" ")
        if version != __version__:
            return f"rank {rank} on {shown(host)} is vlconv {shown(version)}, and rank 0 is {__version__}"
    return ""


def _there(store: Store, names: list[str], end: float) -> bool:
    """Wait until all have been set; torch's own waiting would complain on stderr."""
    while not store.check(names):
        if time.monotonic() > end:
            return False
        time.sleep(EVERY)
    return True


def _listed(numbers: list[str]) -> str:
    return ", ".join(numbers[:10]) + (f" and {len(numbers) - 10} more" if len(numbers) > 10 else "")


def _minutes() -> str:
    return f"{WAIT / 60:.0f} minutes" if WAIT >= 60 else f"{WAIT:.0f} seconds"


def _hint(place: Place | None = None) -> str:
    if place is None:
        return (
            "See that hosts reach one another by the addresses that their names have; GLOO_SOCKET_IFNAME names the "
            "network interface to use."
        )
    return (
        f"Start as many processes as {place.names.size} says ({place.size}), with the same version of vlconv, and with "
        f"the {MASTER} and {PORT} of rank 0. Inside another job, {ALONE}."
    )


def _first(fault: BaseException) -> str:
    return shown(next(iter(str(fault).splitlines()), type(fault).__name__))


@contextmanager
def _stdout_kept() -> Iterator[None]:
    """Within it what a library writes to the process' stdout goes to stderr: stdout may be one JSON document."""
    try:
        kept = os.dup(1)
    except OSError:  # it is closed
        yield
        return
    try:
        os.dup2(2, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
