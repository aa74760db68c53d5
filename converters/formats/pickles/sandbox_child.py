"""The process that unpickles.

Started by sandbox.py, isolated. It reads a slice of an inherited file, answers on stdout, and may die of its limits.
Its stdin is a pipe into which nobody writes, and whose other end the parent alone holds.

    python -I -S -c START FOLDER KIND FD OFFSET LENGTH CRC        KIND is "dcp" or "tree", CRC -1 when there is none

An isolated process knows no packages, and importing vlconv would cost more than the work: START makes a package of
FOLDER, this file's, and nothing else is importable but the standard library.

The answer is no pickle: 8 bytes "vlconv01", then the header's length (8 bytes, little), the header (JSON), then arrays
of little-endian int64 whose lengths the header gives. A header with the key "refused" says what is wrong with the file,
one with "errno" why the system did not let it be read. Standard library only.
"""

from __future__ import annotations

import fcntl
import gc
import json
import os
import resource
import sys
import zlib

from . import closed_unpickler as pickles
from .metadata_columns import dcp
from .plain_tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:  # the child starts without typing: importing it takes longer than reading a small checkpoint
    from array import array
    from typing import Any

MAGIC = b"vlconv01"

SIGKILL = 9


def end_with_parent() -> None:
    """Let the system kill this process when the parent's end of stdin is closed, which a parent's death does, too.

    (prctl would do the same; to load what calls it takes ten times as long.)
    """
    fcntl.fcntl(0, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(0, fcntl.F_SETSIG, SIGKILL)
    fcntl.fcntl(0, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    try:
        if not os.read(0, 1):  # it was closed before
            os._exit(1)
    except BlockingIOError:
        pass


def limit(nbytes: int) -> None:
    """Caps memory and CPU time by the size of the pickle, forbids files and core dumps."""
    memory = (512 << 20) + 32 * nbytes
    seconds = 10 + nbytes // 5_000_000
    for kind, most in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        least = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(
            kind, (least, hard if kind == resource.RLIMIT_CPU else least)
        )  # so that SIGXCPU tells time from other deaths


def read(fd: int, offset: int, length: int, crc: int) -> bytes:
    """The slice of the file, checked against its CRC-32."""
    data = os.pread(fd, length, offset)
    if len(data) != length:
        raise pickles.Refused("is shorter than its length says")
    if crc >= 0 and zlib.crc32(data) != crc:
        raise pickles.Refused("is damaged: its checksum differs")
    return data


def answer(kind: str, data: bytes) -> tuple[dict[str, Any], dict[str, array[int]]]:
    """Header and columns for a pickle."""
    value = pickles.load(data)
    return dcp(value) if kind == "dcp" else ({"tree": Tree(len(data)).encode(value)}, {})


def send(header: dict[str, Any], columns: dict[str, array[int]]) -> None:
    """Writes the answer to stdout."""
    if sys.byteorder != "little":
        for column in columns.values():
            column.byteswap()
    text = json.dumps(
        {**header, "columns": {name: len(column) for name, column in columns.items()}}, separators=(",", ":")
    ).encode()
    out = sys.stdout.buffer
    out.write(MAGIC + len(text).to_bytes(8, "little") + text)
    for column in columns.values():
        out.write(memoryview(column))
    out.flush()


def main() -> None:
    """Reads, unpickles, answers; ends the process."""
    kind, (fd, offset, length, crc) = sys.argv[1], map(int, sys.argv[2:])
    end_with_parent()
    limit(length)
    gc.disable()
    columns: dict[str, array[int]] = {}
    header: dict[str, Any]
    try:
        header, columns = answer(kind, read(fd, offset, length, crc))
    except pickles.Refused as fault:
        header = {"refused": str(fault)[:1000]}
    except MemoryError:
        header = {"refused": "needs far more memory to read than its size explains"}
    except RecursionError:
        header = {"refused": "is nested deeper than any checkpoint"}
    except OSError as fault:  # of reading: nothing else here asks the system
        header = {"errno": fault.errno}
    except Exception as fault:  # whatever it is, an answer is better than a traceback nobody sees
        header = {"refused": f"cannot be read ({type(fault).__name__}: {fault})"[:1000]}
    send(header, columns)
    os._exit(0)  # freeing a million records one by one takes longer than reading them
