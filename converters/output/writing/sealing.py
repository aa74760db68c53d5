"""The last of an output file: what depends on the sums of its tensors is written when all of them are."""

from __future__ import annotations

from ...formats.output_file import OutFile, WrittenFile
from ...formats.sums.crc import crc32, laid_out
from .filled import Filled
from .open_file import OpenFile


def seal(file: OutFile, out: OpenFile, filled: Filled) -> WrittenFile:
    """Write a file's literals.

    Args:
        file: as it was planned.
        out: open.
        filled: all of its tensors.

    Raises:
        OSError: with the name of the file.
    """
    pieces = filled.pieces()
    sums = tuple(crc for _, crc in pieces)
    literals = [*file.literals, *(file.seal(sums) if file.seal else ())]
    out.write((offset, memoryview(data)) for offset, data in literals)
    runs = [(piece.offset, *total) for piece, total in zip(file.pieces, pieces, strict=True)]
    runs += [(offset, len(data), crc32(data)) for offset, data in literals]
    specials = dict(sorted(filled.specials.found.items()))  # not in the order in which threads came upon them
    return WrittenFile(file.name, file.size, laid_out(file.size, runs), sums, specials)
