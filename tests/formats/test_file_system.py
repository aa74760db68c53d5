"""Which file systems are written to past the system's memory."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from vlconv.converters.formats import file_system
from vlconv.converters.formats.file_system import kind_of, takes_direct


def test_as_the_system_tells(tmp_path: Path) -> None:
    """Witness: stat(1), which asks the file system itself."""
    told = subprocess.run(["stat", "-f", "-c", "%T", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    names = {"ext4": "ext2/ext3", "overlay": "overlayfs"}
    assert names.get(kind_of(tmp_path.stat().st_dev), kind_of(tmp_path.stat().st_dev)) == told.strip()


def mounted(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the table of mounts say what our folder lies on."""
    device = tmp_path.stat().st_dev
    line = f"22 1 {os.major(device)}:{os.minor(device)} / /a rw,relatime shared:1 - {kind} /dev/x rw"
    table = tmp_path / "mountinfo"
    table.write_text(f"21 1 999:9 / /b rw - ext4 /dev/y rw\n{line}\n")
    monkeypatch.setattr(file_system, "MOUNTS", table)


@pytest.mark.parametrize(
    ("kind", "direct"),
    [("ext4", True), ("xfs", True), ("overlay", True), ("tmpfs", False), ("nfs4", False), ("fuse.sshfs", False)],
)
def test_what_pays(tmp_path: Path, kind: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted(tmp_path, kind, monkeypatch)
    assert kind_of(tmp_path.stat().st_dev) == kind
    assert takes_direct(tmp_path) is direct


def test_a_system_that_does_not_tell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_system, "MOUNTS", tmp_path / "absent")
    assert not takes_direct(tmp_path)
