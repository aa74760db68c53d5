"""What a file system is, as far as it matters to how one reads and writes there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PASSED_BY = ("ext2", "ext3", "ext4", "xfs", "overlay")
"""File systems of local disks, where writing past the system's memory (O_DIRECT) pays.

It costs a fifth of the CPU time there, and leaves that memory to others. On a share every write waits for the server.
"""

MOUNTS = Path("/proc/self/mountinfo")


def takes_direct(directory: Path) -> bool:
    """Whether files below a directory are better written past the system's memory."""
    with suppress(OSError):
        return kind_of(directory.stat().st_dev) in PASSED_BY
    return False


def is_fuse(device: int) -> bool:
    """Whether a file system runs outside the kernel, as those of object stores do.

    Its inode numbers last no longer than the kernel's memory of a file, and a long run outlasts that.
    """
    return kind_of(device).startswith("fuse")


def kind_of(device: int) -> str:
    """The file system of a device, by its number: "ext4", "tmpfs", …; "" where the system does not tell."""
    number = f"{os.major(device)}:{os.minor(device)}"
    with suppress(OSError, ValueError, IndexError):
        for line in MOUNTS.read_text(errors="replace").splitlines():
            mount, _, source = line.partition(" - ")  # see proc_pid_mountinfo(5)
            if mount.split(" ")[2] == number:
                return source.split(" ")[0]
    return ""
