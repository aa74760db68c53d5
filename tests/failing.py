"""A stand-in of the system's calls on files, in a process of its own: they are listed, and one of them fails.

Python's files are there those of `_pyio`, so that what a program does with them comes to the same calls.
"""

from __future__ import annotations

import _pyio
import builtins
import io
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from stepping import Steps

from vlconv.converters.output.staging import atomic_swap

BY_NUMBER = ("read", "pread", "preadv", "readv", "write", "pwrite", "fsync", "close", "ftruncate", "sendfile")
BY_PATH = ("open", "mkdir", "rename", "replace", "symlink", "truncate", "unlink", "rmdir", "chmod")


class Call(NamedTuple):
    """One call.

    Attributes:
        name: of the function.
        path: of the file it was about; of a rename what was renamed.
        to: of a rename its new name.
    """

    name: str
    path: str
    to: str = ""


class Calls:
    """The calls on what is below a directory.

    Args:
        root: that directory.
        trace: file that the list is written to, outside of it.
        at: number of the call that fails, among those of one name, as threads take turns otherwise in each run; 0:
            none.
        code: with this errno.
        name: that name.
    """

    def __init__(self, root: Path, trace: Path, at: int = 0, code: int = 0, name: str = "") -> None:
        self._root, self._trace, self._at, self._code = os.path.realpath(root), trace, at, code
        self._name = name
        self._calls: list[Call] = []
        self._lock = threading.Lock()

    def __call__(self, steps: Steps) -> None:
        """Put the stand-ins in place, in the new process (killing.run's `prepare`)."""
        for name in BY_NUMBER:
            setattr(os, name, self._by_number(name, getattr(os, name)))
        for name in BY_PATH:
            setattr(os, name, self._by_path(name, getattr(os, name)))
        io.open = builtins.open = _pyio.open  # type: ignore[assignment]
        exchange, leave = atomic_swap.exchange, os._exit

        def exchanged(a: Path, b: Path) -> bool:
            self._count(Call("exchange", str(a), str(b)), str(b))
            return exchange(a, b)

        def left(code: int) -> None:
            self._trace.write_text(json.dumps(self._calls))
            leave(code)

        atomic_swap.exchange = exchanged
        os._exit = left  # type: ignore[assignment]

    def list(self) -> list[Call]:
        """What was called in the run that is over."""
        return [Call(*call) for call in json.loads(self._trace.read_text())]

    def _by_number(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(number: int, *args: Any, **options: Any) -> Any:
            try:
                path = str(Path(f"/proc/self/fd/{number}").readlink())
            except OSError:
                path = ""
            if name == "close":  # it is closed, even where it says that something went wrong
                real(number)
                return self._count(Call(name, path), None)
            self._count(Call(name, path), None)
            return real(number, *args, **options)

        return call

    def _by_path(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *args: Any, **options: Any) -> Any:
            # Seen from a directory that shutil.rmtree holds open, a name is no path of ours.
            if isinstance(path, str | os.PathLike) and not {"dir_fd", "src_dir_fd"} & set(options):
                where = os.fspath(path)
                to = os.fspath(args[0]) if name in ("rename", "replace", "symlink") else ""
                flags = args[0] if name == "open" and args else 0
                kind = "create" if flags & os.O_CREAT else name
                self._count(Call(kind, str(to) if name == "symlink" else where, str(to)), where)
            return real(path, *args, **options)

        return call

    def _count(self, call: Call, filename: str | None) -> None:
        if not call.path.startswith(f"{self._root}{os.sep}"):
            return
        with self._lock:
            self._calls.append(call)
            fails = call.name == self._name and [one.name for one in self._calls].count(self._name) == self._at
        if fails:
            raise OSError(self._code, os.strerror(self._code), *([] if filename is None else [filename]))
