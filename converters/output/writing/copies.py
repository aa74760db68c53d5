"""Files that are copied byte for byte."""

from __future__ import annotations

import os
from pathlib import Path

from ...errors import CorruptError, shown_path
from ...formats.open_files import opened
from ...formats.output_file import WrittenFile
from ...formats.sums.crc import crc32
from ..faults import told
from .open_file import OpenFile

BLOCK = 1 << 20


def copy_file(source: Path, root: Path, name: str) -> WrittenFile:
    """Copy a file below a directory.

    Args:
        source: a regular file.
        root: the output directory.
        name: path of the copy below it; nothing is there.

    Raises:
        CorruptError, ReadError: the source cannot be read, or becomes shorter meanwhile.
        TargetError: the copy cannot be written.
    """
    target, crc = root / name, 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened(source) as file:
        size = os.fstat(file.fileno()).st_size
        with told(target):
            out = OpenFile(target, size)
        try:
            for at in range(0, size, BLOCK):
                data = file.read(min(BLOCK, size - at))
                if len(data) < min(BLOCK, size - at):
                    raise CorruptError(f"{shown_path(source)} became shorter while it was read")
                with told(target):  # else it would be taken for a fault of the source
                    out.write([(at, memoryview(data))])
                crc = crc32(data, crc)
        finally:
            out.close()
    return WrittenFile(name, size, crc)
