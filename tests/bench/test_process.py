"""A process's figures are those of all of it; and nothing of it outlives it."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from bench import cache, machine, process

MIB = 1 << 20

BUSY = """
import mmap, time
held = bytearray(64 << 20)                    # anonymous
held[::4096] = b"x" * (16 << 10)
shared = mmap.mmap(-1, 16 << 20)               # shared
shared[::4096] = b"x" * (4 << 10)
with open({path!r}, "rb") as file:            # of a file
    mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    sum(mapped[::4096])
while time.process_time() < 0.4:
    pass
"""


def test_what_a_descendant_takes_is_counted(tmp_path: Path) -> None:
    """sh waits for a python of 64 and 16 MiB and 0.4 s, which maps 32 MiB besides: those are the page cache's."""
    (tmp_path / "file").write_bytes(bytes(32 * MIB))
    (tmp_path / "busy.py").write_text(BUSY.format(path=str(tmp_path / "file")))
    run = process.measure(["sh", "-c", f"{sys.executable} -I -S {tmp_path}/busy.py; true"])
    assert 80 * MIB < run.anonymous < 100 * MIB
    assert 80 * MIB < run.child_anonymous <= run.anonymous
    assert run.own_anonymous < 4 * MIB
    assert run.cpu >= 0.4 > 0.1 > run.own_cpu
    assert run.seconds >= run.child_seconds >= 0.3


def test_what_failed_says_so() -> None:
    with pytest.raises(process.Failed, match="ended with 3") as fault:
        process.measure(["sh", "-c", "echo first >&2; echo last >&2; exit 3"])
    assert fault.value.last == "last"


def test_an_interrupt_ends_all_of_it(tmp_path: Path) -> None:
    def interrupt(_number: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(KeyboardInterrupt):
            process.measure(["sh", "-c", f"sleep 100 & echo $! > {tmp_path}/pid; wait"])
    finally:
        signal.signal(signal.SIGALRM, before)
    pid = int((tmp_path / "pid").read_text())
    status = Path(f"/proc/{pid}/stat")
    assert not status.exists() or status.read_text().rpartition(")")[2].split()[0] == "Z"


def test_cold_is_cold(tmp_path: Path) -> None:
    if machine.in_memory(tmp_path):
        pytest.skip("nothing is cold in memory")
    file = tmp_path / "file"
    file.write_bytes(os.urandom(8 * MIB))
    with file.open("rb+") as written:
        os.fdatasync(written.fileno())  # what is not there cannot be dropped, and the tests' fsync waits for nothing
    assert cache.resident([file]) == 1
    cache.drop([file])
    assert cache.resident([file]) < 0.1
    cache.warm([file])
    assert cache.resident([file]) == 1
