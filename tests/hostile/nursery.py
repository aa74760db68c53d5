"""A warm process that forks a real `vlconv` for each line on stdin: imports cost seconds, a fork some milliseconds.

Protocol: a JSON object {argv, cwd, env, out, err, wall, memory} in, a JSON object of what came of it out. The child has
its own session, limits, stdout and stderr, and calls the console script's function; descendants that it leaves behind
become this process's children, and so are seen.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import resource
import select
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

CPU = 60
"""Seconds of processor time after which a child is ended by the system."""

SUBREAPER = 36  # prctl: orphans below become our children


def main() -> None:
    """Serve until stdin ends."""
    warm()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    print("ready", flush=True)
    while line := sys.stdin.readline():  # iteration would read ahead
        print(json.dumps(serve(json.loads(line))), flush=True)


def warm() -> None:
    """Import what commands import, heavy libraries too."""
    import vlconv

    for module in pkgutil.walk_packages(vlconv.__path__, "vlconv."):
        if not module.name.endswith(("__main__", "sandbox_child")):
            importlib.import_module(module.name)
    for name in (
        "numpy",
        "torch.distributed.checkpoint",
        "yaml",
        "isal.isal_zlib",
        "huggingface_hub",
        "encodings.idna",
    ):
        importlib.import_module(name)
    vlconv.app.main  # noqa: B018 - as an attribute: that it is there
    with suppress(ImportError):  # what typer imports where it meets the first argument, if it has that module
        importlib.import_module("typer._adapters")
    gc.collect()
    gc.freeze()


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Run one command and tell of it."""
    base = _resident()
    begun = time.monotonic()
    pid = os.fork()
    if not pid:
        _child(request)
    handle = os.pidfd_open(pid)
    waiting = select.poll()
    waiting.register(handle, select.POLLIN)
    hung = not waiting.poll(1000 * request["wall"])
    os.close(handle)
    if hung:
        os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    return {
        "code": os.waitstatus_to_exitcode(status),
        "hung": hung,
        "wall": time.monotonic() - begun,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": max(0, usage.ru_maxrss - base) << 10,
        "orphans": _orphans(),
    }


def _child(request: dict[str, Any]) -> None:
    """Be the command: never returns."""
    code = 99
    try:
        os.setsid()
        for fd, path in ((0, os.devnull), (1, request["out"]), (2, request["err"])):
            opened = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            os.dup2(opened, fd)
            os.close(opened)
        os.chdir(request["cwd"])
        os.environ.update(request["env"])
        for kind, most in (
            (resource.RLIMIT_AS, request["memory"]),
            (resource.RLIMIT_CPU, CPU),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 1 << 30),
        ):
            resource.setrlimit(kind, (most, most))
        sys.argv = ["vlconv", *request["argv"]]
        code = _called()
    except BaseException:  # a fork must never unwind into the nursery's loop
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _called() -> int:
    from vlconv.app import main as console_script

    try:
        console_script()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _resident() -> int:
    """KiB of this process that are in memory, which a fork begins with."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGESIZE") >> 10


def _orphans() -> int:
    """How many descendants were left running; they are ended."""
    left = 0
    patience = time.monotonic() + 0.5
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return left
        if pid:
            continue
        if time.monotonic() < patience:
            time.sleep(0.01)
            continue
        for living in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            left += 1
            os.kill(int(living), signal.SIGKILL)
            os.waitpid(int(living), 0)


if __name__ == "__main__":
    main()
