"""The machine and the programs that were measured."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import checkout

LIBRARIES = ("torch", "megatron-core", "transformers", "safetensors", "numpy", "isal")


def facts(work: Path) -> dict[str, Any]:
    """What a figure depends on, for bench.json.

    Args:
        work: where the files are made.
    """
    return {
        "cores": cores(),
        "processor": _first("/proc/cpuinfo", "model name"),
        "memory": _kilobytes("MemTotal"),
        "kernel": platform.release(),
        "file_system": file_system(work),
        "python": platform.python_version(),
        "vlconv": os.environ.get("VLCONV") or f"{_vlconv()} ({checkout.revision() or 'no commit known'})",
        "descendants": Path(f"/proc/self/task/{os.getpid()}/children").exists(),  # a kernel may list none
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def cores() -> int:
    """Cores that this process may use: of all, those it is bound to, and those that its group is given time for."""
    bound = len(os.sched_getaffinity(0))
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return bound
    return bound if quota == "max" else max(1, min(bound, -(-int(quota) // int(period))))


def available_memory() -> int:
    """Bytes that programs can still have."""
    return _kilobytes("MemAvailable")


def file_system(path: Path) -> str:
    """The type of the file system that a path lies on: ext4, tmpfs, …"""
    path = path.resolve()
    best, found = -1, "unknown"
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, kind = line.partition(" - ")
        mounted = Path(fields.split()[4])
        if (path == mounted or mounted in path.parents) and len(mounted.parts) >= best:
            best, found = len(mounted.parts), kind.split()[0]
    return found


def in_memory(path: Path) -> bool:
    """Whether a path lies in a file system that takes memory, not a disk."""
    return file_system(path) in ("tmpfs", "ramfs")


def _kilobytes(name: str) -> int:
    return 1024 * int((_first("/proc/meminfo", name) or "0").split()[0])


def _first(path: str, name: str) -> str | None:
    """The value of the first line `name: value`."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def _vlconv() -> str:
    from vlconv import __version__

    return __version__


def _version(name: str) -> str | None:
    if name in sys.modules and hasattr(sys.modules[name], "__version__"):
        return str(sys.modules[name].__version__)
    try:
        return version(name)
    except PackageNotFoundError:
        return None
